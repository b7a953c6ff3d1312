"""XOR by the 2-2-1 sigmoid net of derivation 001, section 5: its equations, then the library.

For one example with inputs x_q, hidden outputs a_n, output h and target y, and with weight 0 the
bias (x_0 = a_0 = 1), the cost c = -[y log h + (1 - y) log(1 - h)] has the derivatives

    dC/dw1_n  =        sum_p a_n (h - y)                                                 (13)
    dC/dw0_qn = w1_n   sum_p x_q a_n (1 - a_n) (h - y)                                   (15)

The note writes (y - h): its c is the log-likelihood, to be ascended; a cost turns the sign.

    python xor_2_2_1.py [--backend cupy]
"""

import argparse
from math import exp

import numpy as np

import mlp

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
y = np.array([0.0, 1.0, 1.0, 0.0])


def sigmoid(z):
    return 1.0 / (1.0 + exp(-z))


def gradient_by_equations(w0, w1):
    """(13) and (15) as they stand; w0[q][n] and w1[n], index 0 being the bias."""
    d0 = [[0.0] * 3 for _ in range(3)]
    d1 = [0.0] * 3
    for x_p, y_p in zip(X, y, strict=True):
        x = [1.0, *x_p]
        a = [1.0] + [sigmoid(sum(w0[q][n] * x[q] for q in (0, 1, 2))) for n in (1, 2)]
        h = sigmoid(sum(w1[n] * a[n] for n in (0, 1, 2)))
        for n in (0, 1, 2):
            d1[n] += a[n] * (h - y_p)  # (13)
        for n in (1, 2):
            for q in (0, 1, 2):
                d0[q][n] += w1[n] * x[q] * a[n] * (1.0 - a[n]) * (h - y_p)  # (15)
    return d0, d1


def with_bias_as_weight_0(W, b):
    """The library's W[k, l] (rows: from, columns: to) and b[l] in the note's form."""
    w0 = [[0.0, *b[1]]] + [[0.0, *row] for row in W[0, 1]]
    return w0, [b[2][0], *W[1, 2][:, 0]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", help="numpy, cupy, torch, ...; default $MLP_BACKEND, or numpy")
    backend = parser.parse_args().backend

    net = mlp.Network(2, [mlp.Dense(2, "sigmoid"), mlp.Dense(1, "sigmoid")])
    loss = "binary_cross_entropy"  # of all examples: the sum, as in eq. (2)
    model = mlp.Model(net, loss, reduction="sum", seed=5, backend=backend, dtype="float64")
    on_host = model.backend.to_numpy

    C, g = model.value_and_gradient(X, y)
    found = with_bias_as_weight_0(*net.unpack(on_host(g)))
    expected = gradient_by_equations(*with_bias_as_weight_0(*net.unpack(on_host(model.w))))

    print(f"C = {C:.6f} with the first weights\n")
    print("                    equation         library")
    (d0, d1), (g0, g1) = expected, found
    for n in (1, 2):
        for q in (0, 1, 2):
            print(f"dC/dw0_{q}{n}  (15){d0[q][n]:>14.10f}{g0[q][n]:>16.10f}")
    for n in (0, 1, 2):
        print(f"dC/dw1_{n}   (13){d1[n]:>14.10f}{g1[n]:>16.10f}")
    largest = max(np.abs(np.subtract(d0, g0)).max(), np.abs(np.subtract(d1, g1)).max())
    print(f"largest difference {largest:.1e}\n")

    result = mlp.train(
        model, X, y, optimizer="sgd", learning_rate=1.0, batch_size=None, epochs=5000,
        target_loss=0.05,
    )  # fmt: skip
    print(f"gradient descent, {result.state.epoch} epochs: {result.stopped}")
    for x_p, y_p, (h_p,) in zip(X, y, result.model.predict(X), strict=True):
        print(f"  {x_p[0]:.0f} xor {x_p[1]:.0f} = {y_p:.0f}   h = {h_p:.4f}")


if __name__ == "__main__":
    main()
