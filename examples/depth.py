"""One to eight hidden layers: the recursion of derivation 000, and what it does to the deltas.

With f' a function of the unit's output v, delta of any layer comes from the layer after it,

    delta_i = f'(z_i) (t_i - z_i)                         in the output layer
    delta_i = f'(v_i) sum_k delta_k w_ki                  in any other
    dE/dW_ji = -1/(cN) sum_s delta_j x_i

however many there are. The same line of code as often as there are layers; each time the deltas
are multiplied by f', at most 1/4 for the sigmoid, so in deep nets little of them reaches the first
layer. tanh, with f' up to 1, keeps more.

    python depth.py [--backend cupy]
"""

import argparse

import numpy as np

import mlp

DERIVATIVE = {"sigmoid": lambda v: v * (1.0 - v), "tanh": lambda v: 1.0 - v * v}
FUNCTION = {"sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)), "tanh": np.tanh}
LEARNING_RATE = {"sigmoid": 0.02, "tanh": 0.01}


def rings(n=300):
    """Three classes, on circles around each other, as one-hot targets."""
    rng = np.random.default_rng(0)
    ring, angle = rng.integers(0, 3, n), rng.uniform(0.0, 2.0 * np.pi, n)
    r = 0.4 * (ring + 1) + 0.05 * rng.normal(size=n)
    return np.column_stack([r * np.cos(angle), r * np.sin(angle)]), np.eye(3)[ring]


def network(hidden_layers, activation):
    return mlp.Network(
        2, [mlp.Dense(12, activation) for _ in range(hidden_layers)] + [mlp.Dense(3, activation)]
    )


def recursion(net, activation, w, X, T):
    """dE/dW of every layer, as derivation 000 has it, sums over examples as products."""
    f, df = FUNCTION[activation], DERIVATIVE[activation]
    W, b = net.unpack(w)
    v = [X]
    for l in net.numbers():
        v.append(f(v[-1] @ W[l - 1, l] + b[l]))
    c, N = T.shape[1], len(X)
    delta = df(v[-1]) * (T - v[-1])
    gradients = {}
    for l in reversed(net.numbers()):
        gradients[l] = -v[l - 1].T @ delta / (c * N)
        delta = df(v[l - 1]) * (delta @ W[l - 1, l].T)
    return gradients


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", help="numpy, cupy, torch, ...; default $MLP_BACKEND, or numpy")
    backend = parser.parse_args().backend

    X, T = rings()
    print("            library and      |dE/dW| of the first layer    right after 200 epochs")
    print("hidden      recursion        over that of the last         of Adam, batches of 30")
    print("layers      differ by         sigmoid          tanh         sigmoid        tanh")
    for hidden_layers in range(1, 9):
        difference, share, right = 0.0, [], []
        for activation in ("sigmoid", "tanh"):
            net = network(hidden_layers, activation)
            targets = T if activation == "sigmoid" else 2.0 * T - 1.0
            model = mlp.Model(net, "half_mean_squared_error", backend=backend, dtype="float64")
            on_host = model.backend.to_numpy

            _, g = model.value_and_gradient(X, targets)
            gW, _ = net.unpack(on_host(g))
            expected = recursion(net, activation, on_host(model.w), X, targets)
            for l, dW in expected.items():
                difference = max(difference, abs(gW[l - 1, l] - dW).max() / abs(dW).max())
            norms = [np.linalg.norm(gW[l - 1, l]) for l in (1, net.depth)]
            share.append(norms[0] / norms[1])

            result = mlp.train(
                model.to(dtype="float32"), X, targets, learning_rate=LEARNING_RATE[activation],
                batch_size=30, epochs=200,
            )  # fmt: skip
            found = result.model.predict(X).argmax(axis=1)
            right.append((found == T.argmax(axis=1)).mean())
        print(
            f"{hidden_layers:>4}{difference:>17.0e}{share[0]:>18.1e}{share[1]:>14.1e}"
            f"{right[0]:>15.0%}{right[1]:>13.0%}"
        )


if __name__ == "__main__":
    main()
