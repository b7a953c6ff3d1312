"""Law 2: each equation of the five derivations, as its note writes it, against the library.

A test is named after its note and equation. The reference is the note's own formula as loops over
units and sums over examples, in the note's letters, signs and index order; nothing of it comes from
the library. Where a formula is a derivative, `complex_step` gives the number it must be.

A slip in a note is said where the equation stands, and its formula is the corrected one.

The premise of 003, its eq. (1)-(3), is the chain and product rule of calculus: not library matter.
"""

import cmath
import math
from types import SimpleNamespace

import numpy as np
import pytest

from mlp import Dense, Model, Network, train
from mlp.formulas.optimizers import OPTIMIZERS


def close(actual, expected, rtol=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-14)


def random_weights(net, seed=0):
    """(w, W, b): W and b are views of w."""
    w = np.random.default_rng(seed).normal(size=net.parameters)
    return w, *net.unpack(w)


def library(backend, net, loss, w, X, t, reduction=None):
    """(E, gradient with respect to W, to b) by the library in float64, on the host."""
    model = Model(net, loss, reduction=reduction, w=w, backend=backend, dtype="float64")
    E, g = model.value_and_gradient(np.atleast_2d(X), np.atleast_2d(t))
    return E, *net.unpack(backend.to_numpy(g))


def predict(backend, net, w, X):
    model = Model(net, "half_squared_error", w=w, backend=backend, dtype="float64")
    return model.predict(np.atleast_2d(X))


def trained(backend, net, w, X, t, **settings):
    """(w after training, the result), with half the sum of squares."""
    model = Model(net, "half_squared_error", w=w, backend=backend, dtype="float64")
    result = train(model, X, t, shuffle=False, **settings)
    return backend.to_numpy(result.model.w), result


def complex_step(E, w):
    """dE/dw = Im E(w + ih) / h: exact to rounding, as no difference of near numbers is taken."""
    h = 1e-30
    gradient = np.empty(len(w))
    for i in range(len(w)):
        moved = w.astype(complex)
        moved[i] += 1j * h
        gradient[i] = E(moved).imag / h
    return gradient


def sigmoid(z):
    return 1.0 / (1.0 + cmath.exp(-z)) if isinstance(z, complex) else 1.0 / (1.0 + math.exp(-z))


def tanh(z):
    return cmath.tanh(z) if isinstance(z, complex) else math.tanh(z)


# ========================================================================================= 000
# x_i inputs, y_j and v outputs of hidden units, z_k outputs of the net, t_k targets; W_kj is the
# weight from j to k. E = 1/(2cN) ΣΣ (t - z)², and δ has the sign of t - z: dE/dW = -1/(cN) Σ δ y.

OUTPUT_DERIVATIVES_000 = {  # f' in terms of the unit's output v
    "sigmoid": (sigmoid, lambda v: v * (1.0 - v)),
    "tanh": (tanh, lambda v: 1.0 - v * v),
    "softplus": (lambda z: math.log1p(math.exp(z)), lambda v: 1.0 - math.exp(-v)),
}


def case_000(*units, activation="sigmoid", N=5):
    net = Network(units[0], [Dense(n, activation, bias=False) for n in units[1:]])
    rng = np.random.default_rng(sum(units))
    X, T = rng.normal(size=(N, units[0])), rng.uniform(size=(N, units[-1]))
    w, W, _ = random_weights(net)
    return net, w, W, X, T


def outputs_000(W, units, x, f):
    """The outputs of the units of every layer, v[0] = x."""
    v = [list(x)]
    for layer in range(1, len(units)):
        v.append(
            [
                f(sum(W[layer - 1, layer][i, j] * v[-1][i] for i in range(units[layer - 1])))
                for j in range(units[layer])
            ]
        )
    return v


def test_000_convention_error(backend):
    """E = 1/(2cN) Σ_s Σ_k (t_k - z_k)²: the mean over N examples and c outputs, halved."""
    units = (3, 4, 2)
    net, w, W, X, T = case_000(*units)
    N, c, E = len(X), 2, 0.0
    for s in range(N):
        z = outputs_000(W, units, X[s], sigmoid)[-1]
        for k in range(c):
            E += (T[s, k] - z[k]) ** 2
    close(library(backend, net, "half_mean_squared_error", w, X, T)[0], E / (2 * c * N))


@pytest.mark.parametrize("formula", ["dE_dW_kj", "dE_dW_ji"])
def test_000_one_hidden_layer(backend, formula):
    """dE/dW_kj = -1/(cN) Σ_s δ_k y_j and dE/dW_ji = -1/(cN) Σ_s δ_j x_i, with
    δ_k = z_k(1 - z_k)(t_k - z_k) and δ_j = y_j(1 - y_j) Σ_k δ_k w_kj."""
    units = (3, 4, 2)
    net, w, W, X, T = case_000(*units)
    N, c = len(X), 2
    dW_kj, dW_ji = np.zeros((2, 4)), np.zeros((4, 3))
    for s in range(N):
        x, y, z = outputs_000(W, units, X[s], sigmoid)
        t = T[s]
        w_kj = W[1, 2].T
        delta_k = [z[k] * (1 - z[k]) * (t[k] - z[k]) for k in range(c)]
        delta_j = [
            y[j] * (1 - y[j]) * sum(delta_k[k] * w_kj[k, j] for k in range(c)) for j in range(4)
        ]
        for k in range(c):
            for j in range(4):
                dW_kj[k, j] += -1 / (c * N) * delta_k[k] * y[j]
        for j in range(4):
            for i in range(3):
                dW_ji[j, i] += -1 / (c * N) * delta_j[j] * x[i]
    _, gW, _ = library(backend, net, "half_mean_squared_error", w, X, T)
    if formula == "dE_dW_kj":
        close(gW[1, 2].T, dW_kj)
    else:
        close(gW[0, 1].T, dW_ji)


@pytest.mark.parametrize("activation", OUTPUT_DERIVATIVES_000)
@pytest.mark.parametrize("hidden", [(4,), (4, 3, 5), (3, 4, 2, 4, 3)], ids=len)
def test_000_recursion(backend, hidden, activation):
    """δ_i = f'(z_i)(t_i - z_i) at the output, else f'(v_i) Σ_k δ_k w_ki over all units k of the
    next layer, f' being a function of the unit's output; dE/dW_ji = -1/(cN) Σ_s δ_j x_i.

    Slip: x_i in the last line is the input of the layer at hand, which is v_i of the layer below.
    """
    units = (3, *hidden, 2)
    net, w, W, X, T = case_000(*units, activation=activation)
    f, df = OUTPUT_DERIVATIVES_000[activation]
    N, c, last = len(X), units[-1], len(units) - 1
    dW = {key: np.zeros_like(value) for key, value in W.items()}
    for s in range(N):
        v = outputs_000(W, units, X[s], f)
        delta = {last: [df(v[last][i]) * (T[s, i] - v[last][i]) for i in range(c)]}
        for layer in range(last - 1, 0, -1):
            delta[layer] = [
                df(v[layer][i])
                * sum(
                    delta[layer + 1][k] * W[layer, layer + 1][i, k] for k in range(units[layer + 1])
                )
                for i in range(units[layer])
            ]
        for layer in range(1, last + 1):
            for j in range(units[layer]):
                for i in range(units[layer - 1]):
                    dW[layer - 1, layer][i, j] += -1 / (c * N) * delta[layer][j] * v[layer - 1][i]
    _, gW, _ = library(backend, net, "half_mean_squared_error", w, X, T)
    for key, expected in dW.items():
        close(gW[key], expected)


# ========================================================================================= 001
# y true output, h output of the net, c(y, h) the cost of one output of one example, C their sum.
# w[l][n, m] is the weight from node n of layer l to node m of layer l + 1, nodes counted from 1;
# node 0 stands for the bias. Layer 0 is the input, a^0 = x.


class OwnCost:
    """c(y, h) = log cosh(h - y), a cost that the library does not have."""

    def cost(self, xp, y, t):
        d = y - t
        return d + xp.log1p(xp.exp(-2.0 * d)) - math.log(2.0)

    def derivative(self, xp, y, t):
        return xp.tanh(y - t)


class OwnFunction:
    """f(z) = z / sqrt(1 + z²), f'(z) = (1 + z²)^(-3/2), which the library does not have."""

    def f(self, xp, z):
        return z / xp.sqrt(1.0 + z * z)

    def df(self, xp, v, z, a):
        return v / ((1.0 + z * z) * xp.sqrt(1.0 + z * z))


class OutputItself:
    """c(y, h) = h: the derivative of C is then the derivative of the output."""

    def cost(self, xp, y, t):
        return y

    def derivative(self, xp, y, t):
        return 0.0 * y + 1.0


OWN_001 = SimpleNamespace(
    f=lambda z: z / (1.0 + z * z) ** 0.5,
    df=lambda z: (1.0 + z * z) ** -1.5,
    c=lambda y, h: cmath.log(cmath.cosh(h - y)),
    dc_dz=lambda y, h, z: tanh(h - y) * (1.0 + z * z) ** -1.5,
)
SIGMOID_001 = SimpleNamespace(
    f=sigmoid,
    df=lambda z: sigmoid(z) * (1.0 - sigmoid(z)),
    # (12) with the sign of a cost
    c=lambda y, h: -(y * cmath.log(h) + (1.0 - y) * cmath.log(1.0 - h)),
    dc_dz=lambda y, h, z: h - y,
)


class Case001:
    """A network with weights and P examples, and the note's recursion for one c^p_{n_L}."""

    def __init__(self, *N, kind=OWN_001, P=4, last=None):
        self.N, self.L, self.kind = N, len(N) - 1, kind
        own = kind is OWN_001
        f = OwnFunction() if own else "sigmoid"
        layers = [Dense(n, f) for n in N[1:-1]] + [Dense(N[-1], last or f)]
        self.net = Network(N[0], layers)
        self.loss = OwnCost() if own else "binary_cross_entropy"
        rng = np.random.default_rng(100 + sum(N))
        self.X, self.Y = rng.normal(size=(P, N[0])), rng.uniform(size=(P, N[-1]))
        self.v = random_weights(self.net, seed=len(N))[0]
        self.w = self.weights(self.v)

    def weights(self, v):
        """w[l] with the biases as row 0, from the library's flat vector."""
        W, b = self.net.unpack(v)
        return [np.vstack([b[l + 1], W[l, l + 1]]) for l in range(self.L)]

    def values(self, x, w=None):
        """(z, a) of one example by eq. (1); z[l][n] and a[l][n], nodes from 1."""
        w = self.w if w is None else w
        z, a = [None], [[None, *x]]
        for l in range(self.L):
            z.append([None])
            for m in range(1, self.N[l + 1] + 1):
                total = w[l][0, m - 1]
                for n in range(1, self.N[l] + 1):
                    total = total + w[l][n, m - 1] * a[l][n]
                z[l + 1].append(total)
            a.append([None] + [self.kind.f(value) for value in z[l + 1][1:]])
        return z, a

    def cost(self, v):
        """C of eq. (2) as a function of the flat vector."""
        C = 0.0
        for x, y in zip(self.X, self.Y, strict=True):
            h = self.values(x, self.weights(v))[1][self.L]
            for n_L in range(1, self.N[-1] + 1):
                C = C + self.kind.c(y[n_L - 1], h[n_L])
        return C

    def one_cost(self, x, y, n_L):
        """∂c_{n_L}/∂z[l][n] for every layer, by the first line of (9), from the last to the first.

        c_{n_L} depends on no other node of the last layer than n_L.
        """
        z, a = self.values(x)
        d = {self.L: dict.fromkeys(range(1, self.N[-1] + 1), 0.0)}
        d[self.L][n_L] = self.kind.dc_dz(y[n_L - 1], a[self.L][n_L], z[self.L][n_L])
        for l in range(self.L - 1, 0, -1):
            d[l] = {
                n: self.kind.df(z[l][n])
                * sum(self.w[l][n, m - 1] * d[l + 1][m] for m in range(1, self.N[l + 1] + 1))
                for n in range(1, self.N[l] + 1)
            }
        return d

    def gradient(self):
        """∂C/∂w by the second and third line of (9), in the form of w."""
        dC = [np.zeros_like(w) for w in self.w]
        for x, y in zip(self.X, self.Y, strict=True):
            _, a = self.values(x)
            for n_L in range(1, self.N[-1] + 1):
                d = self.one_cost(x, y, n_L)
                for l in range(self.L):
                    for m in range(1, self.N[l + 1] + 1):
                        dC[l][0, m - 1] += d[l + 1][m]
                        for n in range(1, self.N[l] + 1):
                            dC[l][n, m - 1] += a[l][n] * d[l + 1][m]
        return dC

    def up_to(self, l):
        """The network cut off behind layer l, before its activation, and its part of the flat
        vector: its outputs are z[l]."""
        net = Network(self.N[0], [*self.net.layers[: l - 1], Dense(self.N[l])])
        W, b = self.net.unpack(self.v)
        return net, net.pack(
            {k: W[k] for k in net.weight_slices}, {m: b[m] for m in net.bias_slices}
        )

    def library(self, backend, loss=None, X=None, Y=None):
        """(C, ∂C/∂w with the biases as row 0) by the library, summed over examples."""
        X, Y = self.X if X is None else X, self.Y if Y is None else Y
        C, gW, gb = library(backend, self.net, loss or self.loss, self.v, X, Y, "sum")
        return C, [np.vstack([gb[l + 1], gW[l, l + 1]]) for l in range(self.L)]


def test_001_eq_1(backend):
    """z^{l+1}_m = w_0m + Σ_n w_nm f(z^l_n), in every layer."""
    case = Case001(3, 4, 2, 3)
    for l in range(1, case.L + 1):
        z = [case.values(x)[0][l][1:] for x in case.X]
        close(predict(backend, *case.up_to(l), case.X), z)


@pytest.mark.parametrize("kind", [OWN_001, SIGMOID_001], ids=["own_cost_and_f", "sigmoid"])
def test_001_eq_2(backend, kind):
    """C = Σ_p Σ_{n_L} c(y, h), for a cost and an f that are objects of the user's own too."""
    case = Case001(3, 4, 2, kind=kind)
    close(case.library(backend)[0], case.cost(case.v).real)


def test_001_eq_3(backend):
    """∂C/∂w = Σ_p Σ_{n_L} ∂c^p_{n_L}/∂w: the gradient of each example and output on its own."""
    case = Case001(3, 4, 2)
    one_by_one = [np.zeros_like(w) for w in case.w]
    for x, y in zip(case.X, case.Y, strict=True):
        _, parts = case.library(backend, X=x, Y=y)
        for total, part in zip(one_by_one, parts, strict=True):
            total += part
    _, gradient = case.library(backend)
    reference = case.weights(complex_step(case.cost, case.v))
    for l in range(case.L):
        close(gradient[l], one_by_one[l])
        close(gradient[l], case.gradient()[l])
        close(gradient[l], reference[l])


def test_001_eq_4(backend):
    """∂c/∂w = ∂c/∂z · ∂z/∂w, one example and one output, the two factors each on its own."""
    case = Case001(3, 4, 1, P=1)
    dc_dz = case.one_cost(case.X[0], case.Y[0], 1)
    _, a = case.values(case.X[0])
    _, gradient = case.library(backend)
    for l in range(case.L):
        dz_dw = [1.0, *a[l][1:]]  # (5), (6)
        for m in range(1, case.N[l + 1] + 1):
            for n in range(case.N[l] + 1):
                close(gradient[l][n, m - 1], dc_dz[l + 1][m] * dz_dw[n])


def dz_dw_001(backend, case, l):
    """∂z^l_m/∂w_nm by the library, the bias as row 0: the cost is z^l_m itself."""
    net, v = case.up_to(l)
    _, gW, gb = library(backend, net, OutputItself(), v, case.X, np.zeros((1, case.N[l])))
    return np.vstack([gb[l], gW[l - 1, l]])


def test_001_eq_5(backend):
    """∂z^{l+1}_m/∂w_0m = 1."""
    case = Case001(3, 4, 2, 3, P=1)
    for l in range(1, case.L + 1):
        assert (dz_dw_001(backend, case, l)[0] == 1.0).all()


def test_001_eq_6(backend):
    """∂z^{l+1}_m/∂w_nm = a^l_n."""
    case = Case001(3, 4, 2, 3, P=1)
    _, a = case.values(case.X[0])
    for l in range(1, case.L + 1):
        for column in dz_dw_001(backend, case, l)[1:].T:
            close(column, a[l - 1][1:])


def dz_dz_001(backend, case, l, m):
    """∂z^{l+1}_m/∂z^l_n for every n, by the library: the cost is z^{l+1}_m, and ∂z^l_n is what its
    bias is changed by (5)."""
    W, b = case.net.unpack(case.v)
    net = Network(case.N[0], [*case.net.layers[:l], Dense(1)])
    weights = {k: W[k] for k in net.weight_slices if k[1] <= l} | {(l, l + 1): W[l, l + 1][:, [m]]}
    v = net.pack(weights, {i: b[i] for i in range(1, l + 1)} | {l + 1: b[l + 1][[m]]})
    return library(backend, net, OutputItself(), v, case.X, [[0.0]])[2][l]


def test_001_eq_7(backend):
    """∂c/∂z^{l+1}_n = Σ_m ∂c/∂z^{l+2}_m · ∂z^{l+2}_m/∂z^{l+1}_n, all three by the library."""
    case = Case001(3, 4, 3, 1, P=1)
    _, gradient = case.library(backend)
    for l in range(1, case.L):
        dc_dz, dc_dz_above = gradient[l - 1][0], gradient[l][0]  # by (5) the biases' derivatives
        total = np.zeros(case.N[l])
        for m in range(case.N[l + 1]):
            total += dc_dz_above[m] * dz_dz_001(backend, case, l, m)
        close(dc_dz, total)


def test_001_eq_8(backend):
    """∂z^{l+2}_m/∂z^{l+1}_n = w_nm f'(z^{l+1}_n)."""
    case = Case001(3, 4, 3, 1, P=1)
    z, _ = case.values(case.X[0])
    for l in range(1, case.L):
        for m in range(case.N[l + 1]):
            expected = [case.w[l][n, m] * case.kind.df(z[l][n]) for n in range(1, case.N[l] + 1)]
            close(dz_dz_001(backend, case, l, m), expected)


LINES_001 = pytest.mark.parametrize("line", ["dc_dz", "dC_dw_0", "dC_dw_n"])


@LINES_001
def test_001_eq_9(backend, line):
    """The delta of a layer from the next one's; from it the derivatives for biases and weights.

    Slip: in the third line the inner sum over n_L keeps only the derivative with respect to the
    one z that the weight feeds: a node of the last layer has one c_{n_L}, not all of them.
    """
    check_system_001(backend, Case001(3, 4, 2), line)


@LINES_001
def test_001_eq_10(backend, line):
    """The same, counted down from the last layer, here through three hidden ones. Slip: as (9)."""
    check_system_001(backend, Case001(2, 3, 4, 3, 2), line)


def check_system_001(backend, case, line):
    if line == "dc_dz":
        outputs = range(1, case.N[-1] + 1)
        for x, y in zip(case.X, case.Y, strict=True):
            deltas = [case.one_cost(x, y, n_L) for n_L in outputs]
            _, gradient = case.library(backend, X=x, Y=y)
            for l in range(1, case.L + 1):
                close(
                    gradient[l - 1][0],  # of one example it is Σ_{n_L} ∂c_{n_L}/∂z, by (5)
                    [sum(d[l][n] for d in deltas) for n in range(1, case.N[l] + 1)],
                )
        return
    _, gradient = case.library(backend)
    expected, rows = case.gradient(), slice(0, 1) if line == "dC_dw_0" else slice(1, None)
    exact = case.weights(complex_step(case.cost, case.v))
    for l in range(case.L):
        close(gradient[l][rows], expected[l][rows])
        close(gradient[l][rows], exact[l][rows])


def test_001_eq_11(backend):
    """One output node: no inner sum over n_L, and none over n_l for the layer below the output."""
    case = Case001(3, 4, 1)
    dC = np.zeros((4, 4))
    for x, (y,) in zip(case.X, case.Y, strict=True):
        z, a = case.values(x)
        dc_dz_L = case.kind.dc_dz(y, a[2][1], z[2][1])
        for n in range(1, 5):
            dc_dz = case.kind.df(z[1][n]) * case.w[1][n, 0] * dc_dz_L
            dC[0, n - 1] += dc_dz
            for q in range(1, 4):
                dC[q, n - 1] += x[q - 1] * dc_dz
    close(case.library(backend)[1][0], dC)


def test_001_eq_12(backend):
    """c = -[y log h + (1 - y) log(1 - h)].

    Slip: the note's c, without the minus, is the log-likelihood, which is to be ascended.
    """
    case = Case001(3, 4, 2, kind=SIGMOID_001)
    log_likelihood = 0.0
    for x, y in zip(case.X, case.Y, strict=True):
        h = case.values(x)[1][case.L]
        for n in (1, 2):
            log_likelihood += y[n - 1] * math.log(h[n]) + (1 - y[n - 1]) * math.log(1 - h[n])
    close(case.library(backend)[0], -log_likelihood)


def test_001_eq_13(backend):
    """Sigmoid units: ∂c/∂z^L = h - y, and below a(1 - a) Σ w ∂c/∂z.

    Slip, of (12): the note's y - h is the derivative of the log-likelihood; here is minus that.
    """
    case = Case001(3, 4, 3, 2, kind=SIGMOID_001)
    gradient = [np.zeros_like(w) for w in case.w]
    for x, y in zip(case.X, case.Y, strict=True):
        _, a = case.values(x)
        d = {case.L: [None, *(a[case.L][n] - y[n - 1] for n in (1, 2))]}
        for l in (2, 1):
            d[l] = [None]
            for n in range(1, case.N[l] + 1):
                total = sum(case.w[l][n, m - 1] * d[l + 1][m] for m in range(1, case.N[l + 1] + 1))
                d[l].append(a[l][n] * (1 - a[l][n]) * total)
        for l in range(case.L):
            for m in range(1, case.N[l + 1] + 1):
                gradient[l][0, m - 1] += d[l + 1][m]
                for n in range(1, case.N[l] + 1):
                    gradient[l][n, m - 1] += a[l][n] * d[l + 1][m]
    _, found = case.library(backend)
    exact = case.weights(complex_step(case.cost, case.v))
    for l in range(case.L):
        close(found[l], gradient[l])
        close(found[l], exact[l])


def test_001_eq_14(backend):
    """Two layers: a^0 = x, the input layer has no activation, or the identity if you prefer."""
    case = Case001(3, 4, 2)
    dC = np.zeros((4, 4))
    for x, y in zip(case.X, case.Y, strict=True):
        z, a = case.values(x)
        for n_1 in range(1, 5):
            dc_dz = case.kind.df(z[1][n_1]) * sum(
                case.w[1][n_1, n_2 - 1] * case.kind.dc_dz(y[n_2 - 1], a[2][n_2], z[2][n_2])
                for n_2 in (1, 2)
            )
            dC[0, n_1 - 1] += dc_dz
            for q in range(1, 4):
                dC[q, n_1 - 1] += x[q - 1] * dc_dz
    close(case.library(backend)[1][0], dC)


def test_001_eq_15(backend):
    """The 2-2-1 net over 2 examples: ∂C/∂w⁰_0n = w¹_n Σ_p a_n(1 - a_n)(h - y), and times x_q.

    Slip, of (12): with the note's (y - h) this is the gradient of the log-likelihood.
    """
    case = Case001(2, 2, 1, kind=SIGMOID_001, P=2)
    _, gradient = case.library(backend)
    w1 = case.w[1][1:, 0]
    for n in (1, 2):
        as_written = dict.fromkeys((0, 1, 2), 0.0)
        for p in (0, 1):
            x, y = [1.0, *case.X[p]], case.Y[p, 0]  # x_0 = 1 stands for the bias
            _, a = case.values(case.X[p])
            h = a[2][1]
            for q in (0, 1, 2):
                as_written[q] += w1[n - 1] * x[q] * a[1][n] * (1 - a[1][n]) * (y - h)
        for q in (0, 1, 2):
            close(gradient[0][q, n - 1], -as_written[q])


# ========================================================================================= 002
# Columns: h⁽⁰⁾ = x, z⁽ˡ⁾ = W⁽ˡ⁾ᵀ h⁽ˡ⁻¹⁾, h⁽ˡ⁾ = φ(z⁽ˡ⁾), o = o(z⁽ᴸ⁾); W⁽ˡ⁾[i, j] is the weight from
# node i to node j. One example at a time, no biases.


def softmax(z):
    e = [cmath.exp(value) for value in z]
    e = e if any(isinstance(value, complex) for value in z) else [value.real for value in e]
    return [value / sum(e) for value in e]


PAIRS_002 = {  # o(z), J_ML(y, o), ∇_o J_ML, the library's output activation and loss
    "identity_gaussian": SimpleNamespace(
        o=lambda z: list(z),
        J=lambda y, o: sum(0.5 * (o_k - y_k) ** 2 for y_k, o_k in zip(y, o, strict=True)),
        grad=lambda y, o: [o_k - y_k for y_k, o_k in zip(y, o, strict=True)],
        activation="identity",
        loss="half_squared_error",
        y=[0.3, -1.2, 0.7],
    ),
    "sigmoid_bernoulli": SimpleNamespace(
        o=lambda z: [sigmoid(z_k) for z_k in z],
        J=lambda y, o: sum(
            -y_k * cmath.log(o_k) - (1 - y_k) * cmath.log(1 - o_k)
            for y_k, o_k in zip(y, o, strict=True)
        ),
        grad=lambda y, o: [(o_k - y_k) / (o_k * (1 - o_k)) for y_k, o_k in zip(y, o, strict=True)],
        activation="sigmoid",
        loss="binary_cross_entropy",
        y=[1.0, 0.0, 1.0],
    ),
    "softmax_categorical": SimpleNamespace(
        o=softmax,
        J=lambda y, o: sum(-y_k * cmath.log(o_k) for y_k, o_k in zip(y, o, strict=True)),
        grad=lambda y, o: [-y_k / o_k for y_k, o_k in zip(y, o, strict=True)],
        activation="softmax",
        loss="cross_entropy",
        y=[0.0, 1.0, 0.0],
    ),
}


class Case002:
    def __init__(self, *units, pair="sigmoid_bernoulli"):
        self.pair = PAIRS_002[pair]
        self.L, self.units = len(units) - 1, units
        hidden = [Dense(n, "tanh", bias=False) for n in units[1:-1]]
        self.net = Network(units[0], [*hidden, Dense(units[-1], self.pair.activation, bias=False)])
        self.w = random_weights(self.net, seed=2)[0]
        self.W = self.matrices(self.w)
        self.x, self.y = np.random.default_rng(7).normal(size=units[0]), self.pair.y[: units[-1]]

    def matrices(self, w):
        """W⁽ˡ⁾, counted from 1."""
        W, _ = self.net.unpack(w)
        return [None, *(W[l - 1, l] for l in range(1, self.L + 1))]

    def values(self, x, W):
        """(z, h, o) of (2), element by element; h[0] = x."""
        z, h = [None], [list(x)]
        for l in range(1, self.L + 1):
            z.append(
                [sum(W[l][i, j] * h[-1][i] for i in range(len(h[-1]))) for j in range(len(W[l].T))]
            )
            h.append([tanh(value) for value in z[l]])
        return z, h, self.pair.o(z[self.L])

    def J(self, w):
        return self.pair.J(self.y, self.values(self.x, self.matrices(w))[2])

    def start(self, y, o):
        """δ⁽ᴸ⁾ of (10), with the full Jacobian ∂o_k/∂z_j in place of the product with o'."""
        grad = self.pair.grad(y, o)
        return [
            sum(grad[k] * jacobian(self.pair, o, k, j) for k in range(len(o)))
            for j in range(len(o))
        ]

    def deltas(self, x, y, W):
        """δ⁽ˡ⁾ of every layer by (10) and (9); and h."""
        z, h, o = self.values(x, W)
        delta = {self.L: np.array(self.start(y, o))}
        for l in range(self.L, 1, -1):
            phi = np.array([1.0 - tanh(value) ** 2 for value in z[l - 1]])
            delta[l - 1] = (W[l] @ delta[l]) * phi  # (9)
        return delta, [np.array(values) for values in h]

    def library(self, backend):
        E, gW, _ = library(backend, self.net, self.pair.loss, self.w, self.x, self.y)
        return E, [None, *(gW[l - 1, l] for l in range(1, self.L + 1))]


def jacobian(pair, o, k, j):
    """∂o_k/∂z_j."""
    own = 1.0 if k == j else 0.0
    if pair.activation == "softmax":
        return o[k] * (own - o[j])
    return own * (o[k] * (1 - o[k]) if pair.activation == "sigmoid" else 1.0)


def test_002_eq_1(backend):
    """d/dw⁽ᴸ⁻¹⁾_ij of J_ML(y, o(W⁽ᴸ⁾ᵀ φ(W⁽ᴸ⁻¹⁾ᵀ h⁽ᴸ⁻²⁾))), the composition written out."""
    case = Case002(3, 4, 2)
    x, y = case.x, case.y

    def J(w):
        _, W1, W2 = case.matrices(w)
        phi = [tanh(sum(W1[i, j] * x[i] for i in range(3))) for j in range(4)]
        o = [sigmoid(sum(W2[j, k] * phi[j] for j in range(4))) for k in range(2)]
        return case.pair.J(y, o)

    E, gradient = case.library(backend)
    close(E, J(case.w).real)
    close(gradient[1], case.matrices(complex_step(J, case.w))[1])


def test_002_eq_2(backend):
    """o_k = o(z_k), z_k = w_k h⁽ᴸ⁻¹⁾, h_j = φ(z_j), z_j = w_j h⁽ᴸ⁻²⁾."""
    case = Case002(3, 4, 3, 2)
    close(predict(backend, case.net, case.w, case.x)[0], case.values(case.x, case.W)[2])


def test_002_eq_3(backend):
    """d/dw_ij J = Σ_k ∂J/∂o_k · do_k/dz_k · dz_k/dh_j · dh_j/dz_j · dz_j/dw_ij, with
    dz_k/dh_j = w_jk."""
    case = Case002(3, 4, 5, 2)
    z, h, o = case.values(case.x, case.W)
    J_o, W = case.pair.grad(case.y, o), case.W[3]
    found = case.library(backend)[1][2]
    for i in range(4):
        for j in range(5):
            phi = 1.0 - tanh(z[2][j]) ** 2
            terms = [J_o[k] * (o[k] * (1 - o[k])) * W[j, k] * phi * h[1][i] for k in range(2)]
            close(found[i, j], sum(terms))


def test_002_eq_4(backend):
    """d/dw_ij J = h_i δ_j with δ_j = Σ_k δ_k w_jk φ'(z_j). Slip: the note writes w_kj here; it is
    the w_jk of (3)."""
    case = Case002(3, 4, 5, 2)
    z, h, o = case.values(case.x, case.W)
    found = case.library(backend)[1][2]
    delta_L = [o[k] - case.y[k] for k in range(2)]
    for j in range(5):
        back = sum(delta_L[k] * case.W[3][j, k] for k in range(2))
        delta_j = back * (1.0 - tanh(z[2][j]) ** 2)
        for i in range(4):
            close(found[i, j], h[1][i] * delta_j)


def test_002_eq_5(backend):
    """δ⁽ᴸ⁻¹⁾ = W⁽ᴸ⁾ δ⁽ᴸ⁾ ⊙ φ'(z⁽ᴸ⁻¹⁾): for x = (1, 0, 0) the gradient's first row is δ itself."""
    case = Case002(3, 4, 2)
    case.x = np.array([1.0, 0.0, 0.0])
    z, _, o = case.values(case.x, case.W)
    delta_L = np.array([o[k] - case.y[k] for k in range(2)])
    phi = np.array([1.0 - tanh(value) ** 2 for value in z[1]])
    close(case.library(backend)[1][1][0], (case.W[2] @ delta_L) * phi)


def test_002_eq_6(backend):
    """∇J = h⁽ᴸ⁻²⁾ δ⁽ᴸ⁻¹⁾ᵀ, a column times a row."""
    case = Case002(3, 4, 5, 2)
    delta, h = case.deltas(case.x, case.y, case.W)
    close(case.library(backend)[1][2], h[1][:, None] @ delta[2][None, :])


def stochastic_002(backend, case, X, Y, mu):
    """W⁽ˡ⁾ after one epoch of `mlp.train`, one example at a time, in the order given."""
    model = Model(case.net, case.pair.loss, w=case.w, backend=backend, dtype="float64")
    result = train(
        model, X, Y, optimizer="sgd", learning_rate=mu, batch_size=1, epochs=1, shuffle=False
    )
    return case.matrices(backend.to_numpy(result.model.w))


def test_002_eq_7(backend):
    """W⁽ᴸ⁻¹⁾ <- W⁽ᴸ⁻¹⁾ - μ h⁽ᴸ⁻²⁾ δ⁽ᴸ⁻¹⁾ᵀ: one stochastic step of `mlp.train`."""
    case, mu = Case002(3, 4, 2), 0.3
    delta, h = case.deltas(case.x, case.y, case.W)
    trained_W = stochastic_002(backend, case, case.x[None], np.array([case.y]), mu)
    close(trained_W[1], case.W[1] - mu * np.outer(h[0], delta[1]))


def test_002_eq_8(backend):
    """The same down to the input layer, for every W⁽ˡ⁾, and one example after another."""
    case, mu = Case002(3, 4, 3, 2), 0.3
    rng = np.random.default_rng(8)
    X, Y = rng.normal(size=(5, 3)), rng.integers(0, 2, size=(5, 2)).astype(float)
    W = [None, *(matrix.copy() for matrix in case.W[1:])]
    for x, y in zip(X, Y, strict=True):
        delta, h = case.deltas(x, y, W)
        for l in range(1, case.L + 1):
            W[l] -= mu * np.outer(h[l - 1], delta[l])
    for found, expected in zip(stochastic_002(backend, case, X, Y, mu)[1:], W[1:], strict=True):
        close(found, expected)


def test_002_eq_9(backend):
    """δ⁽ˡ⁻¹⁾ = W⁽ˡ⁾ δ⁽ˡ⁾ ⊙ φ'(z⁽ˡ⁻¹⁾) iterated down to the input layer: every ∇J = h δᵀ."""
    case = Case002(3, 4, 2, 5, 3)
    delta, h = case.deltas(case.x, case.y, case.W)
    _, gradient = case.library(backend)
    exact = case.matrices(complex_step(case.J, case.w))
    for l in range(1, case.L + 1):
        close(gradient[l], np.outer(h[l - 1], delta[l]))
        close(gradient[l], exact[l])


@pytest.mark.parametrize("pair", PAIRS_002)
def test_002_eq_10(backend, pair):
    """δ⁽ᴸ⁾ = ∇_o J_ML ⊙ o', h⁽⁰⁾ = x: with its likelihood each of the three outputs gives o - y.

    Slip: the elementwise product holds where o acts unit by unit. Softmax needs the full Jacobian,
    Σ_k ∂J/∂o_k ∂o_k/∂z_j, which with the categorical likelihood collapses to o - y.
    """
    case = Case002(3, 4, 3, pair=pair)
    _, h, o = case.values(case.x, case.W)
    delta = case.start(case.y, o)
    close(delta, [o[k] - case.y[k] for k in range(3)])
    E, gradient = case.library(backend)
    close(E, complex(case.J(case.w)).real)
    close(gradient[2], np.outer(h[1], delta))
    close(gradient[1], case.matrices(complex_step(case.J, case.w))[1])
    if pair == "softmax_categorical":
        slip = [case.pair.grad(case.y, o)[k] * jacobian(case.pair, o, k, k) for k in range(3)]
        assert abs(np.array(slip) - delta).max() > 0.1


def test_002_eq_10_jacobian(backend):
    """Softmax below any cost, here ½ Σ (o - y)²: Σ_k ∂J/∂o_k ∂o_k/∂z_j, which does not collapse."""
    case = Case002(3, 4, 3, pair="softmax_categorical")
    _, h, o = case.values(case.x, case.W)
    delta = [
        sum((o[k] - case.y[k]) * jacobian(case.pair, o, k, j) for k in range(3)) for j in range(3)
    ]
    _, gW, _ = library(backend, case.net, "half_squared_error", case.w, case.x, case.y)
    close(gW[1, 2], np.outer(h[1], delta))


# ========================================================================================= 003
# Units t, u, ... of any graph; w[t, u] is the weight from u to t, o_u the output of unit u, net_t
# the weighted sum into t. A bias is the weight from a unit whose output is 1. δ = -∂E/∂net, so that
# Δw is to be added. E_tot = Σ_p ½ Σ_k (d_k - o_k)².

UNIT_003 = {  # f and f' as functions of net
    "tanh": (tanh, lambda net: 1.0 - tanh(net) ** 2),
    "sigmoid": (sigmoid, lambda net: sigmoid(net) * (1.0 - sigmoid(net))),
    "identity": (lambda net: net, lambda net: 1.0),
}


class Graph003:
    """A network as units and the weights between them; the unit (l, i) is the i-th of layer l."""

    def __init__(self, inputs, layers, seed=3):
        self.net = Network(inputs, layers)
        self.flat = random_weights(self.net, seed)[0]
        self.layer = [[(l, i) for i in range(n)] for l, n in enumerate(self.net.units)]
        self.inputs = {}  # of unit t: the units u it is connected to
        for l in self.net.numbers():
            for t in self.layer[l]:
                self.inputs[t] = [u for k in self.net.sources[l] for u in self.layer[k]] + ["one"]
        rng = np.random.default_rng(33)
        self.X = rng.normal(size=(4, inputs))
        self.D = rng.uniform(size=(4, self.net.outputs))

    def weights(self, flat):
        """w[t, u] of the library's flat vector."""
        W, b = self.net.unpack(flat)
        return {
            (t, u): b[t[0]][t[1]] if u == "one" else W[u[0], t[0]][u[1], t[1]]
            for t, sources in self.inputs.items()
            for u in sources
        }

    def flatten(self, w):
        W = {key: np.zeros((self.net.units[key[0]], self.net.units[key[1]]))
             for key in self.net.weight_slices}  # fmt: skip
        b = {l: np.zeros(self.net.units[l]) for l in self.net.numbers()}
        for (t, u), value in w.items():
            if u == "one":
                b[t[0]][t[1]] = value
            else:
                W[u[0], t[0]][u[1], t[1]] = value
        return self.net.pack(W, b)

    def f(self, t):
        return UNIT_003[self.net.layer(t[0]).activation]

    def outputs(self, w, x):
        """(net_t, o_t) of every unit, for one pattern."""
        o = dict(zip(self.layer[0], x, strict=True)) | {"one": 1.0}
        net = {}
        for t, sources in self.inputs.items():
            net[t] = sum(w[t, u] * o[u] for u in sources)
            o[t] = self.f(t)[0](net[t])
        return net, o

    def E_p(self, w, x, d):
        _, o = self.outputs(w, x)
        return 0.5 * sum((d_k - o[k]) ** 2 for k, d_k in zip(self.layer[-1], d, strict=True))

    def E_tot(self, w):
        return sum(self.E_p(w, x, d) for x, d in zip(self.X, self.D, strict=True))

    def deltas(self, w, x, d):
        """δ_t of every unit: case 1 for outputs; else case 2, from all units that t feeds."""
        net, o = self.outputs(w, x)
        delta = {}
        for t in reversed(self.inputs):
            df = self.f(t)[1](net[t])
            if t in self.layer[-1]:
                delta[t] = (d[t[1]] - o[t]) * df
            else:
                delta[t] = sum(delta[s] * w[s, t] for s in delta if t in self.inputs[s]) * df
        return delta, o

    def step(self, w, x, d):
        """Δ_p w_tu = δ_t o_u."""
        delta, o = self.deltas(w, x, d)
        return {(t, u): delta[t] * o[u] for t, u in w}

    def whole_step(self, w):
        """Δw = Σ_p Δ_p w, Step 1."""
        total = dict.fromkeys(w, 0.0)
        for x, d in zip(self.X, self.D, strict=True):
            for key, value in self.step(w, x, d).items():
                total[key] += value
        return total

    def library(self, backend, X=None, D=None):
        """(E, -∂E/∂w as the note's dictionary) by the library."""
        X, D = self.X if X is None else X, self.D if D is None else D
        E, gW, gb = library(backend, self.net, "half_squared_error", self.flat, X, D)
        return E, self.weights(-self.net.pack(gW, gb))


def two_layers_003():
    return Graph003(3, [Dense(4, "tanh"), Dense(2, "sigmoid")])


def skips_003():
    return Graph003(
        2,
        [
            Dense(3, "tanh"),
            Dense(2, "sigmoid", sources=(0, 1)),
            Dense(3, "tanh", sources=(1, 2)),
            Dense(2, "sigmoid", sources=(0, 1, 3)),
        ],
    )


def same_003(found, expected, rtol=1e-12):
    assert found.keys() == expected.keys()
    close(list(found.values()), list(expected.values()), rtol)


def test_003_total_error(backend):
    """E_tot = Σ_p E_p, E_p = ½ Σ_k (d_k - o_k)²: summed over patterns and outputs, no mean."""
    graph = two_layers_003()
    w = graph.weights(graph.flat)
    close(graph.library(backend)[0], graph.E_tot(w))
    for x, d in zip(graph.X, graph.D, strict=True):
        close(graph.library(backend, x, d)[0], graph.E_p(w, x, d))


def test_003_gradient_is_the_sum_over_patterns(backend):
    """Δw = -∂E_tot/∂w = Σ_p Δ_p w."""
    graph = two_layers_003()
    w = graph.weights(graph.flat)
    _, found = graph.library(backend)
    same_003(found, graph.whole_step(w))
    exact = complex_step(lambda flat: graph.E_tot(graph.weights(flat)), graph.flat)
    same_003(found, graph.weights(-exact))


def test_003_generalized_delta_rule(backend):
    """Δ_p w_tu = -∂E_p/∂net_t · ∂net_t/∂w_tu = δ_t o_u; a bias has o_u = 1, so its Δ_p w is δ_t."""
    graph = two_layers_003()
    for x, d in zip(graph.X, graph.D, strict=True):
        _, o = graph.outputs(graph.weights(graph.flat), x)
        _, found = graph.library(backend, x, d)
        for t, u in found:
            close(found[t, u], found[t, "one"] * o[u])


def test_003_case_1_output_unit(backend):
    """δ_k = (d_k - o_k) f'_k(net_k)."""
    graph = two_layers_003()
    w = graph.weights(graph.flat)
    for x, d in zip(graph.X, graph.D, strict=True):
        net, o = graph.outputs(w, x)
        _, found = graph.library(backend, x, d)
        for k in graph.layer[2]:
            close(found[k, "one"], (d[k[1]] - o[k]) * graph.f(k)[1](net[k]))


def test_003_case_2_hidden_unit(backend):
    """δ_j = (Σ_k δ_k w_kj) f'_j(net_j), with the library's own δ_k of the layer above."""
    graph = two_layers_003()
    w = graph.weights(graph.flat)
    for x, d in zip(graph.X, graph.D, strict=True):
        net, _ = graph.outputs(w, x)
        _, found = graph.library(backend, x, d)
        for j in graph.layer[1]:
            back = sum(found[k, "one"] * w[k, j] for k in graph.layer[2])
            close(found[j, "one"], back * graph.f(j)[1](net[j]))


@pytest.mark.parametrize("graph", [two_layers_003, skips_003], ids=["m_layers", "skips"])
def test_003_deltas_come_from_any_units(backend, graph):
    """The deltas come "from any units to which the current unit is connected"."""
    graph = graph()
    w = graph.weights(graph.flat)
    for x, d in zip(graph.X, graph.D, strict=True):
        same_003(graph.library(backend, x, d)[1], graph.step(w, x, d))
    exact = complex_step(lambda flat: graph.E_tot(graph.weights(flat)), graph.flat)
    same_003(graph.library(backend)[1], graph.weights(-exact))


def test_003_new_weights(backend):
    """w_tu_new = w_tu + η δ_t o_u, pattern after pattern: the stochastic version, one epoch."""
    graph, eta = skips_003(), 0.4
    w = graph.weights(graph.flat)
    for x, d in zip(graph.X, graph.D, strict=True):
        step = graph.step(w, x, d)
        w = {key: w[key] + eta * step[key] for key in w}
    found, _ = trained(
        backend, graph.net, graph.flat, graph.X, graph.D,
        optimizer="sgd", learning_rate=eta, batch_size=1, epochs=1,
    )  # fmt: skip
    same_003(graph.weights(found), w)


def algorithm_1(graph, epsilon, eta, stochastic, most=500):
    """(w, [E_tot before, after each round]) of Algorithm 1.

    Slip: the note writes "while E_tot < ε"; the loop runs while the error is above what is wanted.
    """
    w = graph.weights(graph.flat)
    E_tot = [graph.E_tot(w)]
    while E_tot[-1] > epsilon and len(E_tot) <= most:  # "or other criteria"
        if stochastic:
            for x, d in zip(graph.X, graph.D, strict=True):
                delta_w = graph.step(w, x, d)
                w = {key: w[key] + eta * delta_w[key] for key in w}
        else:
            delta_w = graph.whole_step(w)  # Step 1
            w = {key: w[key] + eta * delta_w[key] for key in w}  # Step 2
        E_tot.append(graph.E_tot(w))
    return w, E_tot


@pytest.mark.parametrize("stochastic", [False, True], ids=["batch", "stochastic"])
def test_003_algorithm_1(backend, stochastic):
    """Until E_tot <= ε: the same number of rounds, the same errors, the same weights."""
    graph, eta = two_layers_003(), 0.3
    epsilon = 0.7 * graph.E_tot(graph.weights(graph.flat))
    w, E_tot = algorithm_1(graph, epsilon, eta, stochastic)
    rounds = len(E_tot) - 1
    assert 3 < rounds < 100
    found, result = trained(
        backend, graph.net, graph.flat, graph.X, graph.D, optimizer="sgd", learning_rate=eta,
        batch_size=1 if stochastic else None, epochs=500, target_loss=epsilon,
    )  # fmt: skip
    assert result.stopped == "the wanted loss is reached"
    assert result.state.step == rounds * (len(graph.X) if stochastic else 1)
    close(result.history["train_loss"], E_tot[1:], rtol=1e-11)
    same_003(graph.weights(found), w, rtol=1e-11)


def test_003_algorithm_1_stops(backend):
    """The loop's condition itself: no step where E_tot is not above ε at the start, none after
    E_tot = ε exactly, and "or other criteria": the number of epochs."""
    graph = two_layers_003()
    settings = {"optimizer": "sgd", "learning_rate": 0.3, "batch_size": None}
    data = (graph.net, graph.flat, graph.X, graph.D)
    w, result = trained(backend, *data, epochs=9, target_loss=1e9, **settings)
    assert (result.state.step, result.stopped) == (0, "the wanted loss is reached")
    assert (w == graph.flat).all()
    _, result = trained(backend, *data, epochs=9, target_loss=0.0, **settings)
    assert (result.state.step, result.stopped) == (9, "all 9 epochs are done")
    fifth = result.history["train_loss"][4]
    _, result = trained(backend, *data, epochs=9, target_loss=fifth, **settings)
    assert (result.state.step, result.stopped) == (5, "the wanted loss is reached")


def standard_003(w, g, memory, eta, bias):
    return w - eta * g


def momentum_003(w, g, memory, eta, bias):
    """The "+ ..." of Step 2: a share of the last move."""
    memory["move"] = 0.9 * memory.get("move", 0.0) - eta * g
    return w + memory["move"]


def quickprop_003(w, g, memory, eta, bias):
    """Fahlman's program, CMU-CS-88-162, for one weight: d the last move, s the slope, p before."""
    mu, decay = 1.75, 0.0 if bias else 1e-4
    d, p, s = memory.get("move", 0.0), memory.get("slope", 0.0), g + decay * w
    shrink, move = mu / (1.0 + mu), 0.0
    if d < 0.0:
        if s > 0.0:
            move -= eta * s
        move += mu * d if s >= shrink * p else d * s / (p - s)
    elif d > 0.0:
        if s < 0.0:
            move -= eta * s
        move += mu * d if s <= shrink * p else d * s / (p - s)
    else:
        move -= eta * s
    memory["move"], memory["slope"] = move, s
    return w + move


def rprop_003(w, g, memory, eta, bias):
    """iRprop-, Igel and Hüsken 2003, for one weight."""
    step, before = memory.get("step", eta), memory.get("slope", 0.0)
    if g * before > 0.0:
        step = min(1.2 * step, 50.0)
    elif g * before < 0.0:
        step, g = max(0.5 * step, 1e-6), 0.0
    memory["step"], memory["slope"] = step, g
    return w - math.copysign(step, g) if g else w


RULES_003 = {
    "sgd": standard_003,
    "momentum": momentum_003,
    "quickprop": quickprop_003,
    "rprop": rprop_003,
}


@pytest.mark.parametrize("rule", RULES_003)
def test_003_update_rules(backend, rule):
    """Standard back-prop, momentum, Quick-prop, R-prop on Step 1's gradient, weight by weight."""
    graph, eta, rounds = two_layers_003(), 0.05, 12
    w, memory = graph.weights(graph.flat), {}
    for _ in range(rounds):
        step = graph.whole_step(w)
        for key in w:
            state = memory.setdefault(key, {})
            w[key] = RULES_003[rule](w[key], -step[key], state, eta, key[1] == "one")
    found, result = trained(
        backend, graph.net, graph.flat, graph.X, graph.D,
        optimizer=rule, learning_rate=eta, batch_size=None, epochs=rounds,
    )  # fmt: skip
    assert rule in OPTIMIZERS
    same_003(graph.weights(found), w, rtol=1e-9)  # Quick-prop divides by differences of slopes
    assert result.history["loss"][-1] < result.history["loss"][0]


def test_003_regularisation(backend):
    """The "+ ..." as regularisation: E_tot + ½ λ Σ w² over weights, not biases, adds -λ w to Δw."""
    l2 = 0.3
    graph = Graph003(3, [Dense(4, "tanh", l2=l2), Dense(2, "sigmoid", l2=l2)])
    w = graph.weights(graph.flat)
    E, found = graph.library(backend)
    squares = sum(value**2 for (_, u), value in w.items() if u != "one")
    close(E, graph.E_tot(w) + 0.5 * l2 * squares)
    step = graph.whole_step(w)
    same_003(found, {(t, u): step[t, u] - (u != "one") * l2 * w[t, u] for t, u in w})


# ========================================================================================= 004
# 2-4-3-2, layers l = 1..4, layer 1 the input. w^l_ij is the weight from unit j of layer l to unit i
# of layer l + 1, b^l_i its bias; f at every layer; ŷ = a⁴; L = ½ Σ (ŷ_i - y_i)².


class Case004:
    def __init__(self):
        self.net = Network(2, [Dense(n, "sigmoid") for n in (4, 3, 2)])
        self.flat = random_weights(self.net, seed=4)[0]
        self.x, self.y = [0.6, -1.1], [0.9, 0.2]
        self.w, self.b = self.parameters(self.flat)

    def parameters(self, flat):
        W, b = self.net.unpack(flat)
        return {l: W[l - 1, l].T for l in (1, 2, 3)}, {l: b[l] for l in (1, 2, 3)}

    def values(self, w, b):
        """(z, a) of layers 2, 3, 4; a[1] = x."""
        x, z, a = self.x, {}, {}
        z[2] = [sum(w[1][i, j] * x[j] for j in range(2)) + b[1][i] for i in range(4)]
        a[2] = [sigmoid(z[2][i]) for i in range(4)]
        z[3] = [sum(w[2][i, j] * a[2][j] for j in range(4)) + b[2][i] for i in range(3)]
        a[3] = [sigmoid(z[3][i]) for i in range(3)]
        z[4] = [sum(w[3][i, j] * a[3][j] for j in range(3)) + b[3][i] for i in range(2)]
        a[4] = [sigmoid(z[4][i]) for i in range(2)]
        return z, a | {1: x}

    def loss(self, w, b):
        y_hat = self.values(w, b)[1][4]
        return 0.5 * sum((y_hat[i] - self.y[i]) ** 2 for i in range(2))

    def deltas(self):
        z, _ = self.values(self.w, self.b)
        return self.deltas_of(z)

    def deltas_of(self, z):
        """δ⁴, δ³, δ² by the delta learning rule."""
        df = {l: [sigmoid(v) * (1 - sigmoid(v)) for v in z[l]] for l in z}
        w = self.w
        d = {4: [(sigmoid(z[4][i]) - self.y[i]) * df[4][i] for i in range(2)]}
        d[3] = [sum(d[4][j] * w[3][j, i] for j in range(2)) * df[3][i] for i in range(3)]
        d[2] = [sum(d[3][j] * w[2][j, i] for j in range(3)) * df[2][i] for i in range(4)]
        return d

    def library(self, backend):
        """(L, ∂L/∂w^l, ∂L/∂b^l) of the library in the note's order of indices."""
        L, gW, gb = library(backend, self.net, "half_squared_error", self.flat, self.x, self.y)
        return L, {l: gW[l - 1, l].T for l in (1, 2, 3)}, {l: gb[l] for l in (1, 2, 3)}


def test_004_loss(backend):
    """L(θ) = ½ Σ_i (ŷ_i - y_i)²."""
    case = Case004()
    close(case.library(backend)[0], case.loss(case.w, case.b))


@pytest.mark.parametrize("layer", [2, 3, 4])
def test_004_forward(backend, layer):
    """z^l_i = Σ_j w^{l-1}_ij a^{l-1}_j + b^{l-1}_i and a^l_i = f(z^l_i), a¹ = x, ŷ = a⁴."""
    case = Case004()
    z, a = case.values(case.w, case.b)
    W, b = case.net.unpack(case.flat)
    for last, expected in (("identity", z), ("sigmoid", a)):
        layers = [*case.net.layers[: layer - 2], Dense(len(z[layer]), last)]
        net = Network(2, layers)
        flat = net.pack({k: W[k] for k in net.weight_slices}, {l: b[l] for l in net.bias_slices})
        close(predict(backend, net, flat, case.x)[0], expected[layer])


@pytest.mark.parametrize("l", [3, 2, 1])
def test_004_chain_rule(backend, l):
    """∂L/∂w^l_ij = δ^{l+1}_i a^l_j, and ∂L/∂b^l_i = δ^{l+1}_i. Slip: u_j is the input x_j."""
    case = Case004()
    z, a = case.values(case.w, case.b)
    delta = case.deltas_of(z)
    _, gw, gb = case.library(backend)
    for i in range(len(delta[l + 1])):
        close(gb[l][i], delta[l + 1][i])
        for j in range(len(a[l])):
            close(gw[l][i, j], delta[l + 1][i] * a[l][j])


def test_004_delta_4(backend):
    """δ⁴_i = (ŷ_i - y_i) f'(z⁴_i).

    Slip: the note's ∂ŷ/∂z and f'(z) are the same factor, written twice.
    """
    case = Case004()
    _, a = case.values(case.w, case.b)
    gb = case.library(backend)[2]
    for i in range(2):
        y_hat, y = a[4][i], case.y[i]
        df = y_hat * (1 - y_hat)
        close(gb[3][i], (y_hat - y) * df)
        assert abs(gb[3][i] - (y_hat - y) * df * df) > 1e-3  # the slip


@pytest.mark.parametrize("layer", [3, 2])
def test_004_delta_of_a_hidden_layer(backend, layer):
    """δ³_i = (Σ_j δ⁴_j w³_ji) f'(z³_i) and δ²_i = (Σ_j δ³_j w²_ji) f'(z²_i), from the library's
    own δ of the layer above.

    Slips: ∂a³/∂z³ and f'(z³) are one factor again, and "∂L/∂a²" in the line before is ∂L/∂a³.
    """
    case = Case004()
    z, _ = case.values(case.w, case.b)
    delta = case.library(backend)[2]  # delta[l - 1] is δ^l
    for i in range(len(z[layer])):
        df = sigmoid(z[layer][i]) * (1 - sigmoid(z[layer][i]))
        above = delta[layer]
        total = sum(above[j] * case.w[layer][j, i] for j in range(len(above)))
        close(delta[layer - 1][i], total * df)


def test_004_delta_in_general(backend):
    """δ^l_i = (Σ_j δ^{l+1}_j w^l_ji) f'(z^l_i) in every layer: the derivatives of L itself.

    Slip: the recursion ends at δ²; the input layer has no z, hence no δ¹.
    """
    case = Case004()
    exact_w, exact_b = case.parameters(
        complex_step(lambda flat: case.loss(*case.parameters(flat)), case.flat)
    )
    _, gw, gb = case.library(backend)
    delta = case.deltas()
    for l in (1, 2, 3):
        close(gw[l], exact_w[l])
        close(gb[l], exact_b[l])
        close(gb[l], delta[l + 1])


def test_004_any_number_of_hidden_layers(backend):
    """The general rule through five hidden layers."""
    units = (2, 4, 3, 5, 2, 3, 2)
    net = Network(units[0], [Dense(n, "sigmoid") for n in units[1:]])
    flat, W, b = random_weights(net, seed=5)
    x, y, top = [0.3, 0.8], [0.1, 0.7], len(units)
    w = {l: W[l - 1, l].T for l in range(1, top)}
    a = {1: x}
    for l in range(1, top):
        a[l + 1] = [
            sigmoid(sum(w[l][i, j] * a[l][j] for j in range(units[l - 1])) + b[l][i])
            for i in range(units[l])
        ]
    df = {l: [v * (1 - v) for v in a[l]] for l in range(2, top + 1)}
    delta = {top: [(a[top][i] - y[i]) * df[top][i] for i in range(2)]}
    for l in range(top - 1, 1, -1):
        delta[l] = [
            sum(delta[l + 1][j] * w[l][j, i] for j in range(units[l])) * df[l][i]
            for i in range(units[l - 1])
        ]
    _, gW, gb = library(backend, net, "half_squared_error", flat, x, y)
    for l in range(1, top):
        close(gb[l], delta[l + 1])
        close(gW[l - 1, l].T, np.outer(delta[l + 1], a[l]))
