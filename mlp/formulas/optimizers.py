"""Update rules: from the gradient g = dE/dw to the next weights (003, Algorithm 1, step 2).

All parameters are one flat vector w, so a rule is one elementwise formula

    w, *state = update(w, g, *state, *constants)                                          (1)

run as one kernel that writes into w and the state vectors. ``state`` names the vectors and
``initial`` says what they start from; `constants` gives the numbers of one step, computed on the
host, from the learning rate eta (after its schedule) and the step's number, counted from 1.

Your own is any object with these four; one with a name is a row of `OPTIMIZERS` and of
`OptimizerName`.

>>> import numpy as np
>>> rule = OPTIMIZERS["momentum"]()
>>> w, velocity = rule.update(np, np.ones(1), np.ones(1), np.zeros(1), *rule.constants(0.1, 1))
>>> w, velocity
(array([0.9]), array([-0.1]))
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from backends import Array
from mlp.errors import InputError
from mlp.names import check_settings

Numbers = tuple[float, ...]


class Optimizer(Protocol):
    """What training asks of an update rule.

    Optional attributes: ``learning_rate``, the usual one (a rule without it is told one by the
    user); ``decays = True`` (weights take other constants than biases: `constants` is called with
    the factor on its decay, 0 for what does not decay); ``own_rate = True`` (the rule finds its own
    step sizes, a schedule has no meaning); ``matrices = True`` (``matrix(shape)`` gives the rule of
    a matrix between hidden layers, whose ``direct`` writes what comes before its update: `Muon`).
    """

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the state vectors."""

    def initial(self, eta: float) -> Numbers:
        """The value each state vector is filled with at the start."""

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        """The numbers of this step, passed to `update` after the state vectors."""

    @property
    def update(self) -> Callable[..., Any]:
        """Eq. (1): update(xp, w, g, *state, *constants) -> (w, *state)."""


@dataclass(frozen=True)
class SGD:
    """w <- w - eta g. Derivation 003 "standard back-prop", 002 eq. (7)-(8) with mu = eta."""

    state = ()
    learning_rate = 0.1

    def initial(self, eta: float) -> Numbers:
        return ()

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta,)

    def update(self, xp: Any, w: Array, g: Array, eta: Array) -> Any:
        return w - eta * g


@dataclass(frozen=True)
class Momentum:
    """v <- mu v - eta g;  w <- w + v.

    The "+ ..." of derivation 003's Algorithm 1. Source: Rumelhart, Hinton, Williams, 1986.
    """

    momentum: float = 0.9
    state = ("v",)
    learning_rate = 0.05

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'momentum'", momentum="[0, 1)")

    def initial(self, eta: float) -> Numbers:
        return (0.0,)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta, self.momentum)

    def update(self, xp: Any, w: Array, g: Array, v: Array, eta: Array, mu: Array) -> Any:
        v = mu * v - eta * g
        return w + v, v


@dataclass(frozen=True)
class Nesterov:
    """v <- mu v - eta g;  w <- w + mu v - eta g: momentum with the gradient of the point ahead.

    Source: Sutskever, Martens, Dahl, Hinton, ICML 2013, in the variables of the point ahead.
    """

    momentum: float = 0.9
    state = ("v",)
    learning_rate = 0.05

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'nesterov'", momentum="[0, 1)")

    def initial(self, eta: float) -> Numbers:
        return (0.0,)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta, self.momentum)

    def update(self, xp: Any, w: Array, g: Array, v: Array, eta: Array, mu: Array) -> Any:
        v = mu * v - eta * g
        return w + mu * v - eta * g, v


@dataclass(frozen=True)
class RMSprop:
    """v <- rho v + (1 - rho) g²;  w <- w - eta g / (sqrt(v) + epsilon).

    Source: Tieleman, Hinton, lecture 6.5 of "Neural Networks for Machine Learning", 2012.
    """

    rho: float = 0.9
    epsilon: float = 1e-8
    state = ("v",)
    learning_rate = 1e-3

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'rmsprop'", rho="[0, 1)", epsilon="(0, inf)")

    def initial(self, eta: float) -> Numbers:
        return (0.0,)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta, self.rho, 1.0 - self.rho, self.epsilon)

    def update(
        self, xp: Any, w: Array, g: Array, v: Array, eta: Array, rho: Array, rest: Array, eps: Array
    ) -> Any:
        v = rho * v + rest * (g * g)
        return w - eta * g / (xp.sqrt(v) + eps), v


@dataclass(frozen=True)
class Adam:
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g²;  w <- w - eta m̂ / (sqrt(v̂) + epsilon).

    With m̂ = m / (1 - b1^s), v̂ = v / (1 - b2^s) at step s. The two corrections are numbers, so they
    are taken into eta and epsilon: multiply numerator and denominator by sqrt(1 - b2^s).
    corrected = False leaves epsilon as it is (the remark's epsilon-hat; scikit-learn's Adam).

    Source: Kingma, Ba, arXiv:1412.6980, Algorithm 1 and the remark at the end of section 2.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    corrected: bool = True
    state = ("m", "v")
    learning_rate = 1e-3

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'adam'", **_ADAM_RANGES)

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return _adam_constants(self, eta, step, self.corrected)

    def update(self, xp: Any, w: Array, g: Array, m: Array, v: Array, *constants: Array) -> Any:
        return _adam(xp, w, g, m, v, *constants)


@dataclass(frozen=True)
class AdamW:
    """Adam, with w <- (1 - eta weight_decay) w before it, on weights and never on biases.

    Source: Loshchilov, Hutter, arXiv:1711.05101, Algorithm 2, whose decay is multiplied by the
    schedule alone; multiplied by eta, as here, it is what most libraries do.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    state = ("m", "v")
    learning_rate = 1e-3
    decays = True

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'adamw'", **_ADAM_RANGES, weight_decay="[0, inf)")

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        keep = 1.0 - eta * self.weight_decay * decay
        return (keep, *_adam_constants(self, eta, step, corrected=True))

    def update(self, xp: Any, w: Array, g: Array, m: Array, v: Array, *constants: Array) -> Any:
        keep, *adam = constants
        return _adam(xp, keep * w, g, m, v, *adam)


_ADAM_RANGES = {"beta_1": "[0, 1)", "beta_2": "[0, 1)", "epsilon": "(0, inf)"}


def _adam_constants(rule: Any, eta: float, step: int, corrected: bool) -> Numbers:
    """eta, b1, 1 - b1, b2, 1 - b2 and epsilon, with the corrections of this step."""
    b1, b2 = rule.beta_1, rule.beta_2
    root = math.sqrt(1.0 - b2**step)
    epsilon = rule.epsilon * root if corrected else rule.epsilon
    return (eta * root / (1.0 - b1**step), b1, 1.0 - b1, b2, 1.0 - b2, epsilon)


def _adam(xp: Any, w: Array, g: Array, m: Array, v: Array, *constants: Array) -> Any:
    eta, b1, rest1, b2, rest2, eps = constants
    m = b1 * m + rest1 * g
    v = b2 * v + rest2 * (g * g)
    return w - eta * m / (xp.sqrt(v) + eps), m, v


@dataclass(frozen=True)
class AMSGrad:
    """Adam, whose step is divided by the largest v so far: steps that only shrink.

        u <- max(u, v);  w <- w - eta m̂ / (sqrt(u / (1 - b2^s)) + epsilon)

    Source: Reddi, Kale, Kumar, ICLR 2018, Algorithm 2, with Adam's corrections as in most
    libraries.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    state = ("m", "v", "largest")
    learning_rate = 1e-3

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'amsgrad'", **_ADAM_RANGES)

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return _adam_constants(self, eta, step, corrected=True)

    def update(
        self, xp: Any, w: Array, g: Array, m: Array, v: Array, u: Array, *constants: Array
    ) -> Any:
        eta, b1, rest1, b2, rest2, eps = constants
        m = b1 * m + rest1 * g
        v = b2 * v + rest2 * (g * g)
        u = xp.maximum(u, v)
        return w - eta * m / (xp.sqrt(u) + eps), m, v, u


@dataclass(frozen=True)
class Adamax:
    """Adam with the largest slope: u <- max(b2 u, |g| + epsilon);  w <- w - eta m̂ / u.

    Source: Kingma, Ba, arXiv:1412.6980, Algorithm 2; epsilon keeps u from 0, as in PyTorch.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    state = ("m", "u")
    learning_rate = 2e-3

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'adamax'", **_ADAM_RANGES)

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        b1 = self.beta_1
        return (eta / (1.0 - b1**step), b1, 1.0 - b1, self.beta_2, self.epsilon)

    def update(self, xp: Any, w: Array, g: Array, m: Array, u: Array, *constants: Array) -> Any:
        eta, b1, rest1, b2, eps = constants
        m = b1 * m + rest1 * g
        u = xp.maximum(b2 * u, xp.abs(g) + eps)
        return w - eta * m / u, m, u


@dataclass(frozen=True)
class Nadam:
    """Adam with Nesterov's momentum, which grows: mu_s = b1 (1 - 0.96^(s momentum_decay) / 2).

        w <- w - eta ((1 - mu_s) g / (1 - M_s) + mu_{s+1} m / (1 - M_{s+1})) / (sqrt(v̂) + epsilon)

    with M_s = mu_1 ... mu_s. Source: Dozat, ICLR workshop 2016, Algorithm 2 and its section 4 on
    the schedule of mu.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 4e-3
    state = ("m", "v")
    learning_rate = 2e-3

    def __post_init__(self) -> None:
        ranges = _ADAM_RANGES | {"momentum_decay": "(0, inf)"}
        check_settings(self, "optimizer 'nadam'", **ranges)

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        b1, q = self.beta_1, 0.96**self.momentum_decay
        now, following = b1 * (1.0 - 0.5 * q**step), b1 * (1.0 - 0.5 * q ** (step + 1))
        product = b1**step * _halves(q, step) if b1**step > 1e-17 else 0.0
        _, *adam, epsilon = _adam_constants(self, eta, step, corrected=True)
        eta *= math.sqrt(1.0 - self.beta_2**step)
        ahead = eta * following / (1.0 - product * following)
        return (eta * (1.0 - now) / (1.0 - product), ahead, *adam, epsilon)

    def update(self, xp: Any, w: Array, g: Array, m: Array, v: Array, *constants: Array) -> Any:
        eta, ahead, b1, rest1, b2, rest2, eps = constants
        m = b1 * m + rest1 * g
        v = b2 * v + rest2 * (g * g)
        return w - (eta * g + ahead * m) / (xp.sqrt(v) + eps), m, v


def _halves(q: float, n: int) -> float:
    """Π_{i=1..n} (1 - q^i / 2), by the series of its logarithm, for 0 < q < 1."""
    terms = ((0.5 * q) ** k / k * (1.0 - q ** (k * n)) / (1.0 - q**k) for k in range(1, 60))
    return math.exp(-math.fsum(terms))


@dataclass(frozen=True)
class RAdam:
    """Adam that takes plain momentum steps until v̂ has seen enough, then rectifies its variance.

        w <- w - eta m̂                                    while rho_s <= 5
        w <- w - eta r_s m̂ / (sqrt(v̂) + epsilon)          after that

    rho_s = rho - 2 s b2^s / (1 - b2^s) with rho = 2 / (1 - b2) - 1, and r_s² = (rho_s - 4)
    (rho_s - 2) rho / ((rho - 4) (rho - 2) rho_s).

    Source: Liu et al., arXiv:1908.03265, Algorithm 2; 5, where it has 4, as in PyTorch.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    state = ("m", "v")
    learning_rate = 1e-3

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'radam'", **_ADAM_RANGES)

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        b1, b2 = self.beta_1, self.beta_2
        rho, power = 2.0 / (1.0 - b2) - 1.0, b2**step
        seen = rho - 2.0 * step * power / (1.0 - power)
        eta, betas, use = eta / (1.0 - b1**step), (b1, 1.0 - b1, b2, 1.0 - b2), 0.0
        if seen > 5.0:
            use = 1.0
            eta *= math.sqrt((seen - 4.0) * (seen - 2.0) * rho / ((rho - 4.0) * (rho - 2.0) * seen))
            eta *= math.sqrt(1.0 - power)
        return (eta, *betas, use, self.epsilon if use else 1.0)

    def update(self, xp: Any, w: Array, g: Array, m: Array, v: Array, *constants: Array) -> Any:
        eta, b1, rest1, b2, rest2, use, eps = constants
        m = b1 * m + rest1 * g
        v = b2 * v + rest2 * (g * g)
        return w - eta * m / (use * xp.sqrt(v) + eps), m, v


@dataclass(frozen=True)
class Adagrad:
    """v <- v + g²;  w <- w - eta g / (sqrt(v) + epsilon), from v = ``start``.

    Source: Duchi, Hazan, Singer, JMLR 12 (2011), eq. (1) with the diagonal of G.
    """

    start: float = 0.0
    epsilon: float = 1e-10
    state = ("v",)
    learning_rate = 1e-2

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'adagrad'", start="[0, inf)", epsilon="(0, inf)")

    def initial(self, eta: float) -> Numbers:
        return (self.start,)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta, self.epsilon)

    def update(self, xp: Any, w: Array, g: Array, v: Array, eta: Array, eps: Array) -> Any:
        v = v + g * g
        return w - eta * g / (xp.sqrt(v) + eps), v


@dataclass(frozen=True)
class Adadelta:
    """Steps in the units of w: v <- rho v + (1 - rho) g²;  d = sqrt(u + epsilon) / sqrt(v +
    epsilon) g;  u <- rho u + (1 - rho) d²;  w <- w - eta d.

    Source: Zeiler, arXiv:1212.5701, Algorithm 1, where eta is 1.
    """

    rho: float = 0.9
    epsilon: float = 1e-6
    state = ("v", "u")
    learning_rate = 1.0

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'adadelta'", rho="[0, 1)", epsilon="(0, inf)")

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta, self.rho, 1.0 - self.rho, self.epsilon)

    def update(self, xp: Any, w: Array, g: Array, v: Array, u: Array, *constants: Array) -> Any:
        eta, rho, rest, eps = constants
        v = rho * v + rest * (g * g)
        d = xp.sqrt(u + eps) / xp.sqrt(v + eps) * g
        return w - eta * d, v, rho * u + rest * (d * d)


@dataclass(frozen=True)
class Lion:
    """w <- w - eta sign(b1 m + (1 - b1) g);  m <- b2 m + (1 - b2) g: steps of one size.

    Source: Chen et al., arXiv:2302.06675, Algorithm 2, whose decay is `Decayed`.
    """

    beta_1: float = 0.9
    beta_2: float = 0.99
    state = ("m",)
    learning_rate = 1e-4

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'lion'", beta_1="[0, 1)", beta_2="[0, 1)")

    def initial(self, eta: float) -> Numbers:
        return (0.0,)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta, self.beta_1, 1.0 - self.beta_1, self.beta_2, 1.0 - self.beta_2)

    def update(self, xp: Any, w: Array, g: Array, m: Array, *constants: Array) -> Any:
        eta, b1, rest1, b2, rest2 = constants
        return w - eta * xp.sign(b1 * m + rest1 * g), b2 * m + rest2 * g


@dataclass(frozen=True)
class Muon:
    """Momentum whose matrices are made (nearly) orthogonal, for those between hidden layers.

        M <- mu M + (1 - mu) G;   W <- W - eta sqrt(max(1, outputs / inputs)) O(mu M + (1 - mu) G)

    O(N) has the singular vectors of N, and singular values near 1 (`Orthogonal`). All else goes by
    Adam, with the rate eta ``other_rate``.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    momentum: float = 0.95
    other_rate: float = 0.05
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    state = ("m", "v")
    learning_rate = 0.02
    matrices = True

    def __post_init__(self) -> None:
        ranges = _ADAM_RANGES | {"momentum": "[0, 1)", "other_rate": "(0, inf)"}
        check_settings(self, "optimizer 'muon'", **ranges)

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return _adam_constants(self, self.other_rate * eta, step, corrected=True)

    def update(self, xp: Any, w: Array, g: Array, m: Array, v: Array, *constants: Array) -> Any:
        return _adam(xp, w, g, m, v, *constants)

    def matrix(self, shape: tuple[int, int]) -> "Orthogonal":
        """The rule for a matrix of this shape, (inputs, outputs)."""
        return Orthogonal(self.momentum, math.sqrt(max(1.0, shape[1] / shape[0])))


@dataclass(frozen=True)
class Orthogonal:
    """`Muon` on one matrix: `direct` leaves O(N) in v, then the update is elementwise.

        N = mu (mu M + (1 - mu) G) + (1 - mu) G;   X = N / |N|;   five times:
        A = X Xᵀ;   X <- a X + (b A + c A²) X

    The last acts on each singular value s as a s + b s³ + c s^5, which brings them near to 1.
    """

    momentum: float
    longer: float
    state = ("m", "v")
    coefficients = (3.4445, -4.7750, 2.0315)

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (eta * self.longer, self.momentum, 1.0 - self.momentum)

    def update(self, xp: Any, w: Array, g: Array, m: Array, v: Array, *constants: Array) -> Any:
        eta, mu, rest = constants
        return w - eta * v, mu * m + rest * g, v

    def direct(self, tape: Any, g: Array, m: Array, v: Array) -> None:
        """Write on the tape (`mlp.layers.tape.Tape`) how v becomes O(N). All (inputs, outputs)."""
        mu, (a, b, c) = self.momentum, self.coefficients
        rows, columns = g.shape
        size, wide = min(rows, columns), rows <= columns  # A is the smaller of X Xᵀ and Xᵀ X

        def ahead(xp: Any, v: Array, squares: Array, g: Array, m: Array) -> Any:
            v = mu * (mu * m + (1.0 - mu) * g) + (1.0 - mu) * g
            return v, v * v

        def length(xp: Any, total: Array) -> Array:
            return xp.sqrt(total) + 1e-7  # of zeros there is no direction

        def normed(xp: Any, v: Array, length: Array) -> Array:
            return v / length

        def polynomial(xp: Any, squared: Array, A: Array) -> Array:
            return b * A + c * squared

        def onward(xp: Any, v: Array, part: Array) -> Array:
            return a * v + part

        empty, dtype = tape.backend.empty, g.dtype
        part, total = empty((rows * columns,), dtype), empty((1,), dtype)
        A, squared = empty((size, size), dtype), empty((size, size), dtype)
        as_matrix = tape.backend.xp.reshape(part, (rows, columns))
        tape.apply(ahead, (0, 1), v, as_matrix, g, m)
        tape.total(part, total)
        tape.apply(length, (0,), total)
        tape.apply(normed, (0,), v, total)
        for _ in range(5):
            tape.product(*((v, v.T) if wide else (v.T, v)), A)
            tape.product(A, A, squared)
            tape.apply(polynomial, (0,), squared, A)
            tape.product(*((squared, v) if wide else (v, squared)), as_matrix)
            tape.apply(onward, (0,), v, as_matrix)


@dataclass(frozen=True)
class Rprop:
    """iRprop-: each weight has a step size of its own; only the sign of g is used.

    Where g keeps its sign the step size grows by ``grow`` (up to ``largest``); where it turns the
    step size shrinks by ``shrink`` (down to ``smallest``) and this g counts as zero, here and as
    the next step's previous gradient. Then w <- w - sign(g) step. Step sizes start at the learning
    rate. Made for full batches (derivation 003 "R-prop"): signs of noisy gradients mislead it.

    Source: Igel, Hüsken, Neurocomputing 50 (2003), iRprop-.
    """

    grow: float = 1.2
    shrink: float = 0.5
    largest: float = 50.0
    smallest: float = 1e-6
    state = ("step", "previous")
    learning_rate = 0.1
    own_rate = True

    def __post_init__(self) -> None:
        check_settings(
            self, "optimizer 'rprop'", grow="(0, inf)", largest="(0, inf)", smallest="(0, inf)"
        )
        if self.smallest > self.largest:
            raise InputError(
                f"optimizer 'rprop': smallest {self.smallest} is above largest {self.largest}"
            )
        if not self.shrink < 1.0 < self.grow or not self.shrink > 0.0:
            raise InputError(
                f"optimizer 'rprop': 0 < shrink < 1 < grow, not {self.shrink} and {self.grow}"
            )

    def initial(self, eta: float) -> Numbers:
        return (eta, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (self.grow, self.shrink, self.largest, self.smallest)

    def update(
        self, xp: Any, w: Array, g: Array, step: Array, previous: Array, *constants: Array
    ) -> Any:
        grow, shrink, largest, smallest = constants
        turn = xp.sign(g) * xp.sign(previous)  # the product of the slopes could underflow
        longer = xp.minimum(step * grow, largest)
        shorter = xp.maximum(step * shrink, smallest)
        step = xp.where(turn > 0.0, longer, xp.where(turn < 0.0, shorter, step))
        g = xp.where(turn < 0.0, 0.0 * g, g)
        return w - xp.sign(g) * step, step, g


@dataclass(frozen=True)
class Quickprop:
    """A parabola through the last two slopes of each weight; step to its minimum.

        dw <- dw s / (p - s)        s = g + decay w now, p before, dw the step before     (2)

    Fahlman's safeguards: (a) no step longer than ``limit`` times the one before, and that length
    where s has the sign of p and is not below limit/(1 + limit) of it, where (2) would go too far
    or the wrong way; (b) minus eta s is added unless the slope has turned, which also starts a
    weight that has not moved; (c) a small weight decay in s keeps weights from running off, which
    is on weights, never on biases. Made for full batches (derivation 003 "Quick-prop").

    Source: Fahlman, CMU-CS-88-162 (1988), section 3 and its published program.
    """

    limit: float = 1.75
    decay: float = 1e-4
    state = ("move", "previous")
    learning_rate = 0.05
    decays = True

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'quickprop'", limit="(0, inf)", decay="[0, 1)")

    def initial(self, eta: float) -> Numbers:
        return (0.0, 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        share = self.limit / (1.0 + self.limit)
        return (eta, self.limit, share, self.decay * decay)

    def update(
        self, xp: Any, w: Array, g: Array, move: Array, previous: Array, *constants: Array
    ) -> Any:
        eta, limit, share, decay = constants
        s = g + decay * w
        # Measured against the last move, whose slope then was against it: seen from there a slope
        # that has not turned is positive, and so is the previous one.
        side = -xp.sign(move)
        now, before = side * s, side * previous
        gap = before - now
        jump = move * now / xp.where(gap == 0.0, 1.0, gap)  # (2)
        move = xp.where(now >= share * before, limit * move, jump)  # (a)
        straight = xp.where(now > 0.0, eta * s, xp.where(side == 0.0, eta * s, 0.0))  # (b)
        move = move - straight
        return w + move, move, s


@dataclass(frozen=True)
class Decayed:
    """Another rule, with w <- (1 - eta weight_decay) w before it, on weights and never on biases.

    Source: Loshchilov, Hutter, arXiv:1711.05101, Algorithms 1 and 2; see `AdamW` for eta.

    >>> import numpy as np
    >>> rule = Decayed(SGD(), 0.5)
    >>> rule.update(np, np.ones(1), np.ones(1), *rule.constants(0.1, 1))
    array([0.85])
    """

    rule: Optimizer
    weight_decay: float
    decays = True

    @property
    def matrices(self) -> bool:
        return getattr(self.rule, "matrices", False)

    def matrix(self, shape: tuple[int, int]) -> Any:
        """As `Muon.matrix`."""
        return Decayed(self.rule.matrix(shape), self.weight_decay)  # type: ignore[attr-defined]

    def direct(self, tape: Any, *arrays: Array) -> None:
        """As `Orthogonal.direct`."""
        self.rule.direct(tape, *arrays)  # type: ignore[attr-defined]

    @property
    def state(self) -> tuple[str, ...]:
        return self.rule.state

    @property
    def learning_rate(self) -> float | None:
        return getattr(self.rule, "learning_rate", None)

    def initial(self, eta: float) -> Numbers:
        return self.rule.initial(eta)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (1.0 - eta * self.weight_decay * decay, *self.rule.constants(eta, step))

    def update(self, xp: Any, w: Array, g: Array, *rest: Array) -> Any:
        vectors = len(self.rule.state)
        state, keep, constants = rest[:vectors], rest[vectors], rest[vectors + 1 :]
        return self.rule.update(xp, keep * w, g, *state, *constants)


@dataclass(frozen=True)
class Averaged:
    """Another rule, with a mean of the weights beside it: v <- share w + (1 - share) v.

    The mean is a vector of its state, which starts as the weights; see `mlp.formulas.averages`.
    """

    rule: Optimizer
    share: float

    @property
    def decays(self) -> bool:
        return getattr(self.rule, "decays", False)

    @property
    def matrices(self) -> bool:
        return getattr(self.rule, "matrices", False)

    @property
    def learning_rate(self) -> float | None:
        return getattr(self.rule, "learning_rate", None)

    @property
    def state(self) -> tuple[str, ...]:
        return (*self.rule.state, "average")

    def matrix(self, shape: tuple[int, int]) -> Any:
        """As `Muon.matrix`."""
        return Averaged(self.rule.matrix(shape), self.share)  # type: ignore[attr-defined]

    def direct(self, tape: Any, *arrays: Array) -> None:
        """As `Orthogonal.direct`."""
        self.rule.direct(tape, *arrays)  # type: ignore[attr-defined]

    def initial(self, eta: float) -> Numbers:
        return (*self.rule.initial(eta), 0.0)

    def constants(self, eta: float, step: int, decay: float = 1.0) -> Numbers:
        return (*self.rule.constants(eta, step, decay), self.share)

    def update(self, xp: Any, w: Array, g: Array, *rest: Array) -> Any:
        vectors = len(self.rule.state)
        *constants, share = rest[vectors + 1 :]
        new = self.rule.update(xp, w, g, *rest[:vectors], *constants)
        new = new if isinstance(new, tuple) else (new,)
        return (*new, towards(xp, rest[vectors], new[0], share))


def towards(xp: Any, mean: Array, w: Array, share: Array) -> Array:
    """A mean of weights, a share of the way to these."""
    return mean + share * (w - mean)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
    "amsgrad": AMSGrad,
    "adamax": Adamax,
    "nadam": Nadam,
    "radam": RAdam,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "lion": Lion,
    "muon": Muon,
    "rprop": Rprop,
    "quickprop": Quickprop,
}
OptimizerName = Literal[
    "sgd",
    "momentum",
    "nesterov",
    "rmsprop",
    "adam",
    "adamw",
    "amsgrad",
    "adamax",
    "nadam",
    "radam",
    "adagrad",
    "adadelta",
    "lion",
    "muon",
    "rprop",
    "quickprop",
]
