"""XOR with one hidden unit: impossible for a chain, easy with a skip connection.

Derivation 003: "the deltas come from any units to which the current unit is connected". So a layer
may take its inputs from any layers before it, and backpropagation stays the same sum: over all
connections that leave a unit, delta of the unit they lead to times their weight.

    chain:  x -> hidden -> output           skip:  x -> hidden -> output, and x -> output

The chain's output is a function of one weighted sum of x that the hidden unit squeezes, so it can
only rise or only fall with that sum; XOR rises and falls.

    python skip_connections.py [--backend cupy]
"""

import argparse

import numpy as np

import mlp

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
d = np.array([0.0, 1.0, 1.0, 0.0])


def network(skip):
    """2-1-1; layer 0 is the input, and `sources` says what feeds the output."""
    return mlp.Network(2, [mlp.Dense(1, "tanh"), mlp.Dense(1, "sigmoid", sources=skip)])


NETS = {"chain": network(skip=(1,)), "skip": network(skip=(0, 1))}


def deltas_by_hand(net, w):
    """-dE/dw for the 2-1-1 net with skip, pattern by pattern: delta_t o_u of derivation 003."""
    W, b = net.unpack(w)
    step = np.zeros_like(w)
    dW, db = net.unpack(step)
    for x, target in zip(X, d, strict=True):
        o_j = np.tanh(x @ W[0, 1][:, 0] + b[1][0])
        o_k = 1.0 / (1.0 + np.exp(-(x @ W[0, 2][:, 0] + o_j * W[1, 2][0, 0] + b[2][0])))
        delta_k = (target - o_k) * o_k * (1.0 - o_k)
        delta_j = (delta_k * W[1, 2][0, 0]) * (1.0 - o_j**2)  # from the one unit that j feeds
        dW[0, 1][:, 0] += delta_j * x
        dW[0, 2][:, 0] += delta_k * x  # the skip: o_u is the input itself
        dW[1, 2][0, 0] += delta_k * o_j
        db[1][0] += delta_j
        db[2][0] += delta_k
    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", help="numpy, cupy, torch, ...; default $MLP_BACKEND, or numpy")
    backend = parser.parse_args().backend

    net = NETS["skip"]
    print(net.summary())
    model = mlp.Model(net, "half_squared_error", backend=backend, dtype="float64")
    on_host = model.backend.to_numpy
    _, g = model.value_and_gradient(X, d)
    difference = abs(on_host(g) + deltas_by_hand(net, on_host(model.w))).max()
    print(f"\nlibrary and deltas by hand differ by {difference:.1e}\n")

    for name, net in NETS.items():
        right = []
        for seed in range(20):
            model = mlp.Model(net, "binary_cross_entropy", seed=seed, backend=backend)
            result = mlp.train(
                model, X, d, optimizer="rprop", batch_size=None, epochs=300, target_loss=0.05
            )
            right.append(int((result.model.classify(X) == d).sum()))
        print(f"{name:<6} {right.count(4):>2} of 20 nets solve XOR; patterns right: {right}")


if __name__ == "__main__":
    main()
