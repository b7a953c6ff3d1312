"""The three outputs of derivation 002 with their likelihoods, on three small problems.

Maximum likelihood makes a cost J of each pair, and with each pair the output delta of eq. (10),
the vector-Jacobian product of dJ/do with o', is the same:

    identity  + Gaussian       J = 1/2 sum_k (o_k - y_k)^2                        delta = o - y
    sigmoid   + Bernoulli      J = -sum_k [y_k log o_k + (1 - y_k) log(1 - o_k)]  delta = o - y
    softmax   + categorical    J = -sum_k y_k log o_k                             delta = o - y

So a net only changes its last layer and its loss from one kind of problem to the next.

    python outputs_and_likelihoods.py [--backend cupy]
"""

import argparse

import numpy as np

import mlp


def a_noisy_wave(rng):
    """Numbers: y = sin 3x, with noise."""
    X = rng.uniform(-1.5, 1.5, size=(200, 1))
    return X, np.sin(3.0 * X) + 0.1 * rng.normal(size=X.shape)


def inside_the_ring(rng):
    """Yes or no: is the point between two circles?"""
    X = rng.uniform(-1.0, 1.0, size=(300, 2))
    r = np.hypot(X[:, 0], X[:, 1])
    return X, ((r > 0.4) & (r < 0.8)).astype(float)[:, None]


def three_spirals(rng):
    """One of three: on which arm does the point lie?"""
    arm, r = rng.integers(0, 3, 300), rng.uniform(0.1, 1.0, 300)
    angle = 4.0 * r + arm * 2.0 * np.pi / 3.0 + 0.1 * rng.normal(size=300)
    return np.column_stack([r * np.cos(angle), r * np.sin(angle)]), np.eye(3)[arm]


PAIRS = [  # output activation, likelihood, the library's loss, problem
    ("identity", "Gaussian", "half_squared_error", a_noisy_wave),
    ("sigmoid", "Bernoulli", "binary_cross_entropy", inside_the_ring),
    ("softmax", "categorical", "cross_entropy", three_spirals),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", help="numpy, cupy, torch, ...; default $MLP_BACKEND, or numpy")
    backend = parser.parse_args().backend

    for output, likelihood, loss, problem in PAIRS:
        X, y = problem(np.random.default_rng(0))
        layers = [mlp.Dense(32, "tanh"), mlp.Dense(y.shape[1], output)]
        net = mlp.Network(X.shape[1], layers)
        model = mlp.Model(net, loss, reduction="mean", seed=0, backend=backend, dtype="float64")
        print(f"{output} + {likelihood}: {problem.__doc__}")

        # One example: the derivative for the output's bias is the output's delta itself.
        o = model.predict(X[:1])[0]
        _, g = model.value_and_gradient(X[:1], y[:1])
        delta = net.unpack(model.backend.to_numpy(g))[1][2]
        print(f"  o - y {o - y[0]}  delta {delta}  differ by {abs(o - y[0] - delta).max():.0e}")

        result = mlp.train(model, X, y, learning_rate=0.02, batch_size=20, epochs=500)
        before, after = model.evaluate(X, y), result.model.evaluate(X, y)
        measures = ", ".join(f"{name} {after[name]:.3f}" for name in after if name != "loss")
        print(f"  J per example from {before['loss']:.3f} to {after['loss']:.3f}; {measures}\n")


if __name__ == "__main__":
    main()
