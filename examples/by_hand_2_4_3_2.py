"""The 2-4-3-2 network of derivation 004, once by hand in plain loops and once by the library.

    z^l_i = sum_j w^{l-1}_ij a^{l-1}_j + b^{l-1}_i      a^l_i = f(z^l_i)      a^1 = x, a^4 = y_hat
    L = 1/2 sum_i (y_hat_i - y_i)^2
    delta^4_i = (y_hat_i - y_i) f'(z^4_i)
    delta^l_i = (sum_j delta^{l+1}_j w^l_ji) f'(z^l_i)                                  l = 3, 2
    dL/dw^l_ij = delta^{l+1}_i a^l_j                    dL/db^l_i = delta^{l+1}_i

f is the sigmoid, f' = a (1 - a). (The note writes f' twice in delta^4; it is one factor.)

    python by_hand_2_4_3_2.py [--backend cupy]
"""

import argparse
from math import exp

import numpy as np

import mlp

units = {1: 2, 2: 4, 3: 3, 4: 2}
x, y = [0.5, -1.0], [1.0, 0.0]


def f(z):
    return 1.0 / (1.0 + exp(-z))


def forward(w, b):
    """a[l][i] of every layer."""
    a = {1: x}
    for l in (2, 3, 4):
        a[l] = []
        for i in range(units[l]):
            z = sum(w[l - 1][i][j] * a[l - 1][j] for j in range(units[l - 1])) + b[l - 1][i]
            a[l].append(f(z))
    return a


def backward(w, a):
    """delta[l][i], from the last layer to the first that has weights below it."""
    df = {l: [a_i * (1.0 - a_i) for a_i in a[l]] for l in (2, 3, 4)}
    delta = {4: [(a[4][i] - y[i]) * df[4][i] for i in range(units[4])]}
    for l in (3, 2):
        delta[l] = []
        for i in range(units[l]):
            back = sum(delta[l + 1][j] * w[l][j][i] for j in range(units[l + 1]))
            delta[l].append(back * df[l][i])
    return delta


def by_hand(w, b):
    """L, dL/dw and dL/db."""
    a = forward(w, b)
    delta = backward(w, a)
    loss = 0.5 * sum((a[4][i] - y[i]) ** 2 for i in range(units[4]))
    dw = {
        l: [[delta[l + 1][i] * a[l][j] for j in range(units[l])] for i in range(units[l + 1])]
        for l in (1, 2, 3)
    }
    return loss, dw, {l: delta[l + 1] for l in (1, 2, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", help="numpy, cupy, torch, ...; default $MLP_BACKEND, or numpy")
    backend = parser.parse_args().backend

    net = mlp.Network(2, [mlp.Dense(units[l], "sigmoid") for l in (2, 3, 4)])
    model = mlp.Model(net, "half_squared_error", seed=4, backend=backend, dtype="float64")
    on_host = model.backend.to_numpy

    def in_the_notes_form(w):
        """w^l_ij leads from unit j to unit i; the library's W[k, l] has rows j and columns i."""
        W, b = net.unpack(on_host(w))
        return {l: W[l - 1, l].T.tolist() for l in (1, 2, 3)}, {l: b[l].tolist() for l in (1, 2, 3)}

    loss, dw, db = by_hand(*in_the_notes_form(model.w))
    E, g = model.value_and_gradient([x], [y])
    gw, gb = in_the_notes_form(g)

    def row(name, hand, found):
        print(f"{name:<10}{hand:>18.12f}{found:>18.12f}")

    print(f"{'':<10}{'by hand':>18}{'library':>18}")
    row("L", loss, E)
    for l in (3, 2, 1):
        for i in range(units[l + 1]):
            for j in range(units[l]):
                row(f"dL/dw^{l}_{i + 1}{j + 1}", dw[l][i][j], gw[l][i][j])
            row(f"dL/db^{l}_{i + 1}", db[l][i], gb[l][i])
    pairs = [(dw[l], gw[l]) for l in dw] + [(db[l], gb[l]) for l in db]
    largest = max(np.abs(np.subtract(hand, found)).max() for hand, found in pairs)
    print(f"largest difference of the {net.parameters} derivatives: {largest:.1e}")


if __name__ == "__main__":
    main()
