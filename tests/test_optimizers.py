"""Update rules: each equals its paper, step by step, and descends."""

import math
import re
from dataclasses import fields

import numpy as np
import pytest

from mlp.errors import InputError
from mlp.formulas.optimizers import OPTIMIZERS, Adam, Decayed
from mlp.names import make
from mlp.training.settings import Settings

STEPS = 20
START = np.array([1.5, -2.0, 0.3, 4.0, -0.7, 2.5, 0.0, -3.0])
WEIGHTS = 5  # the first are weights, the others biases
CURVATURE = np.array([1.0, 0.3, 2.0, 0.1, 1.5, 0.5, 1.0, 0.7])

rules = pytest.mark.parametrize("name", OPTIMIZERS)


def wavy(w):
    """dE/dw of E = Σ ½ c w² + sin 2w: slopes of both signs, which turn and come back."""
    return CURVATURE * w + 2.0 * np.cos(2.0 * w)


def trajectory(rule, gradient, eta, w=START, steps=STEPS):
    """w after each step, by the rule's formula; weights and biases each with their constants."""
    parts = [(slice(0, WEIGHTS), True), (slice(WEIGHTS, len(w)), False)]
    w = w.copy()
    state = [np.full(w.shape, value) for value in rule.initial(eta)]
    found = []
    for step in range(1, steps + 1):
        g = gradient(w)
        for part, decay in parts:
            numbers = rule.constants(eta, step, decay)
            results = rule.update(np, w[part], g[part], *(x[part] for x in state), *numbers)
            results = results if isinstance(results, tuple) else (results,)
            for x, result in zip((w, *state), results, strict=True):
                x[part] = result
        found.append(w.copy())
    return np.array(found)


# ------------------------------------------------------------------ the papers, written anew

# Each takes the gradient function, eta, a start w and the rule, and gives w after each step.


def sgd(gradient, eta, w, rule):
    for _ in range(STEPS):
        w = w - eta * gradient(w)
        yield w


def momentum(gradient, eta, w, rule):
    """Rumelhart, Hinton, Williams 1986: Δw(t) = -ε ∂E/∂w(t) + α Δw(t-1)."""
    change = 0.0
    for _ in range(STEPS):
        change = -eta * gradient(w) + rule.momentum * change
        w = w + change
        yield w


def nesterov(gradient, eta, w, rule):
    """Sutskever et al. 2013, eq. (3)-(4), in their variables; what is held is the point ahead."""
    mu, theta, v = rule.momentum, w, 0.0
    for _ in range(STEPS):
        v = mu * v - eta * gradient(theta + mu * v)
        theta = theta + v
        yield theta + mu * v


def rmsprop(gradient, eta, w, rule):
    """Tieleman, Hinton 2012: MeanSquare(w, t) = 0.9 MeanSquare(w, t-1) + 0.1 (∂E/∂w)²."""
    mean_square = 0.0
    for _ in range(STEPS):
        g = gradient(w)
        mean_square = rule.rho * mean_square + (1.0 - rule.rho) * g**2
        w = w - eta * g / (np.sqrt(mean_square) + rule.epsilon)
        yield w


def adam(gradient, eta, w, rule, decay=None):
    """Kingma, Ba, Algorithm 1, with m-hat and v-hat; decay as in Loshchilov, Hutter, Algorithm 2
    (line 12), whose λ is times the learning rate here, as is usual."""
    m = v = 0.0
    for t in range(1, STEPS + 1):
        g = gradient(w)
        m = rule.beta_1 * m + (1.0 - rule.beta_1) * g
        v = rule.beta_2 * v + (1.0 - rule.beta_2) * g**2
        m_hat = m / (1.0 - rule.beta_1**t)
        v_hat = v / (1.0 - rule.beta_2**t)
        pull = 0.0 if decay is None else decay * w
        w = w - eta * (m_hat / (np.sqrt(v_hat) + rule.epsilon) + pull)
        yield w


def adamw(gradient, eta, w, rule):
    return adam(gradient, eta, w, rule, rule.weight_decay * is_weight())


def amsgrad(gradient, eta, w, rule):
    """Reddi et al. 2018, Algorithm 2, with the corrections of Adam's Algorithm 1."""
    m = v = largest = 0.0
    for t in range(1, STEPS + 1):
        g = gradient(w)
        m = rule.beta_1 * m + (1.0 - rule.beta_1) * g
        v = rule.beta_2 * v + (1.0 - rule.beta_2) * g**2
        largest = np.maximum(largest, v)
        m_hat, v_hat = m / (1.0 - rule.beta_1**t), largest / (1.0 - rule.beta_2**t)
        w = w - eta * m_hat / (np.sqrt(v_hat) + rule.epsilon)
        yield w


def adamax(gradient, eta, w, rule):
    """Kingma, Ba, Algorithm 2."""
    m = u = 0.0
    for t in range(1, STEPS + 1):
        g = gradient(w)
        m = rule.beta_1 * m + (1.0 - rule.beta_1) * g
        u = np.maximum(rule.beta_2 * u, abs(g) + rule.epsilon)
        w = w - eta / (1.0 - rule.beta_1**t) * m / u
        yield w


def nadam(gradient, eta, w, rule):
    """Dozat 2016, Algorithm 2, mu_t by its section 4."""
    m = v = 0.0
    product = 1.0

    def mu(t):
        return rule.beta_1 * (1.0 - 0.5 * 0.96 ** (t * rule.momentum_decay))

    for t in range(1, STEPS + 1):
        g = gradient(w)
        product *= mu(t)
        m = rule.beta_1 * m + (1.0 - rule.beta_1) * g
        v = rule.beta_2 * v + (1.0 - rule.beta_2) * g**2
        ahead = mu(t + 1) * m / (1.0 - product * mu(t + 1)) + (1.0 - mu(t)) * g / (1.0 - product)
        w = w - eta * ahead / (np.sqrt(v / (1.0 - rule.beta_2**t)) + rule.epsilon)
        yield w


def radam(gradient, eta, w, rule):
    """Liu et al. 2019, Algorithm 2, rectified where rho_t > 5."""
    m = v = 0.0
    rho = 2.0 / (1.0 - rule.beta_2) - 1.0
    for t in range(1, STEPS + 1):
        g = gradient(w)
        m = rule.beta_1 * m + (1.0 - rule.beta_1) * g
        v = rule.beta_2 * v + (1.0 - rule.beta_2) * g**2
        m_hat = m / (1.0 - rule.beta_1**t)
        rho_t = rho - 2.0 * t * rule.beta_2**t / (1.0 - rule.beta_2**t)
        if rho_t > 5.0:
            r = math.sqrt((rho_t - 4.0) * (rho_t - 2.0) * rho / ((rho - 4.0) * (rho - 2.0) * rho_t))
            scale = math.sqrt(1.0 - rule.beta_2**t) / (np.sqrt(v) + rule.epsilon)
            w = w - eta * r * scale * m_hat
        else:
            w = w - eta * m_hat
        yield w


def adagrad(gradient, eta, w, rule):
    """Duchi, Hazan, Singer 2011, eq. (1), diagonal."""
    total = np.full(w.shape, rule.start)
    for _ in range(STEPS):
        g = gradient(w)
        total = total + g**2
        w = w - eta * g / (np.sqrt(total) + rule.epsilon)
        yield w


def adadelta(gradient, eta, w, rule):
    """Zeiler 2012, Algorithm 1: RMS[x] = sqrt(E[x²] + epsilon)."""
    slopes = moves = 0.0
    for _ in range(STEPS):
        g = gradient(w)
        slopes = rule.rho * slopes + (1.0 - rule.rho) * g**2
        move = -np.sqrt(moves + rule.epsilon) / np.sqrt(slopes + rule.epsilon) * g
        moves = rule.rho * moves + (1.0 - rule.rho) * move**2
        w = w + eta * move
        yield w


def lion(gradient, eta, w, rule):
    """Chen et al. 2023, Algorithm 2, with lambda = 0."""
    m = 0.0
    for _ in range(STEPS):
        g = gradient(w)
        w = w - eta * np.sign(rule.beta_1 * m + (1.0 - rule.beta_1) * g)
        m = rule.beta_2 * m + (1.0 - rule.beta_2) * g
        yield w


def rprop(gradient, eta, w, rule):
    """Igel, Hüsken 2003, iRprop-, weight by weight."""
    w = w.copy()
    step = [eta] * len(w)
    before = [0.0] * len(w)
    for _ in range(STEPS):
        g = gradient(w)
        for i in range(len(w)):
            slope = g[i]
            if before[i] * slope > 0.0:
                step[i] = min(step[i] * rule.grow, rule.largest)
            elif before[i] * slope < 0.0:
                step[i] = max(step[i] * rule.shrink, rule.smallest)
                slope = 0.0
            if slope > 0.0:
                w[i] -= step[i]
            elif slope < 0.0:
                w[i] += step[i]
            before[i] = slope
        yield w.copy()


def quickprop(gradient, eta, w, rule):
    """Fahlman's published program, weight by weight; s is the slope now, p the one before, d the
    step before. Its slopes are ∂E/∂w, as are ours."""
    w = w.copy()
    d, p = [0.0] * len(w), [0.0] * len(w)
    shrink = rule.limit / (1.0 + rule.limit)
    for _ in range(STEPS):
        slopes = gradient(w) + rule.decay * is_weight() * w
        for i, s in enumerate(slopes):
            step = 0.0
            if d[i] < 0.0:
                if s > 0.0:
                    step -= eta * s
                if s >= shrink * p[i]:
                    step += rule.limit * d[i]
                else:
                    step += d[i] * s / (p[i] - s)
            elif d[i] > 0.0:
                if s < 0.0:
                    step -= eta * s
                if s <= shrink * p[i]:
                    step += rule.limit * d[i]
                else:
                    step += d[i] * s / (p[i] - s)
            else:
                step -= eta * s
            d[i], p[i] = step, s
            w[i] += step
        yield w.copy()


def is_weight():
    return (np.arange(len(START)) < WEIGHTS).astype(float)


def muon_beside_matrices(gradient, eta, w, rule):
    """What is no matrix between hidden layers; of those is `tests/test_steps.py`."""
    return adam(gradient, rule.other_rate * eta, w, rule)


PAPERS = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "amsgrad": amsgrad,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "lion": lion,
    "muon": muon_beside_matrices,
    "rprop": rprop,
    "quickprop": quickprop,
}
SETTINGS = {
    "momentum": [{}, {"momentum": 0.5}, {"momentum": 0.0}],
    "nesterov": [{}, {"momentum": 0.5}],
    "rmsprop": [{}, {"rho": 0.99, "epsilon": 1e-3}],
    "adam": [{}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2}],
    "adamw": [{}, {"weight_decay": 0.5, "epsilon": 1e-2}],
    "amsgrad": [{}, {"beta_1": 0.5, "beta_2": 0.5, "epsilon": 1e-2}],
    "adamax": [{}, {"beta_1": 0.5, "beta_2": 0.5, "epsilon": 1e-2}],
    "nadam": [{}, {"beta_2": 0.9, "momentum_decay": 2.0, "epsilon": 1e-2}],
    "radam": [{}, {"beta_2": 0.9}, {"beta_2": 0.5, "epsilon": 1e-2}],
    "adagrad": [{}, {"start": 0.5, "epsilon": 1e-2}],
    "adadelta": [{}, {"rho": 0.5, "epsilon": 1e-2}],
    "lion": [{}, {"beta_1": 0.5, "beta_2": 0.7}],
    "rprop": [{}, {"grow": 1.5, "shrink": 0.3, "largest": 0.2, "smallest": 0.05}],
    "quickprop": [{}, {"limit": 1.2, "decay": 0.1}],
}


@rules
@pytest.mark.parametrize("eta", [0.03, 0.2])
def test_equals_its_paper(name, eta):
    for settings in SETTINGS.get(name, [{}]):
        rule = OPTIMIZERS[name](**settings)
        expected = np.array(list(PAPERS[name](wavy, eta, START, rule)))
        actual = trajectory(rule, wavy, eta)
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def test_adam_can_leave_epsilon_uncorrected():
    """Then sqrt(v) is corrected and epsilon is not: epsilon-hat in the remark of section 2."""
    rule = OPTIMIZERS["adam"](epsilon=0.1, corrected=False)
    w, m, v = START.copy(), 0.0, 0.0
    for t in range(1, STEPS + 1):
        g = wavy(w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.1 * math.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t) * m / (np.sqrt(v) + 0.1)
    np.testing.assert_allclose(trajectory(rule, wavy, 0.1)[-1], w, rtol=1e-12)


@rules
def test_decay_is_on_weights_and_never_on_biases(name):
    """Without a gradient weights may shrink; biases stay, and so does everything else."""
    last = trajectory(OPTIMIZERS[name](), np.zeros_like, 0.1)[-1]
    np.testing.assert_array_equal(last[WEIGHTS:], START[WEIGHTS:])
    if getattr(OPTIMIZERS[name], "decays", False):
        assert (abs(last[:WEIGHTS]) < abs(START[:WEIGHTS])).all()
    else:
        np.testing.assert_array_equal(last, START)


ETAS = {
    **{"rmsprop": 0.02, "adam": 0.05, "adamw": 0.05, "amsgrad": 0.05, "adamax": 0.05},
    **{"nadam": 0.05, "radam": 0.05, "adagrad": 0.5, "adadelta": 20.0, "lion": 0.01},
    "muon": 1.0,
}


@rules
def test_minimises_a_quadratic(name):
    """E = Σ ½ c (w - 1)², curvatures from 0.1 to 2."""
    rule = OPTIMIZERS[name]()
    eta = ETAS.get(name, OPTIMIZERS[name].learning_rate)
    found = trajectory(rule, lambda w: CURVATURE * (w - 1.0), eta, steps=800)
    E = (0.5 * CURVATURE * (found - 1.0) ** 2).sum(axis=1)
    assert E[-1] < 1e-3 * (0.5 * CURVATURE * (START - 1.0) ** 2).sum()


@rules
def test_first_step_goes_downhill(name):
    first = trajectory(OPTIMIZERS[name](), wavy, 0.01, steps=1)[0]
    g = wavy(START)
    assert ((first - START)[WEIGHTS:] * g[WEIGHTS:] < 0.0).all()


@rules
def test_state_and_constants_fit_the_update(name):
    rule = OPTIMIZERS[name]()
    assert len(rule.initial(0.1)) == len(rule.state)
    for decay in (True, False):
        numbers = rule.constants(0.1, 1, decay)
        assert all(math.isfinite(x) for x in numbers)
        results = rule.update(np, *(np.ones(2) for _ in range(2 + len(rule.state))), *numbers)
        assert len(results if isinstance(results, tuple) else (results,)) == 1 + len(rule.state)
    same = rule.constants(0.1, 3, decay=False) == rule.constants(0.1, 3)
    assert same != getattr(rule, "decays", False)


@rules
def test_slopes_of_any_size(name, dtype):
    """Tiny, zero and huge slopes give finite weights (squares of the huge ones may overflow)."""
    rule = OPTIMIZERS[name]()
    sizes = np.array([0.0, 1e-30, -1e-30, 1e-8, 1.0, -1e4], dtype)
    w = np.ones_like(sizes)
    state = [np.full(w.shape, value, dtype) for value in rule.initial(0.1)]
    for step in range(1, 6):
        results = rule.update(np, w, sizes, *state, *rule.constants(0.1, step))
        w, *state = results if isinstance(results, tuple) else (results,)
        for x in (w, *state):
            assert np.isfinite(x).all()
            assert x.dtype == dtype
    assert rule.learning_rate > 0.0


@rules
def test_a_step_checks_no_settings(name, monkeypatch):
    """That is done once, when a rule is made; AdamW made an Adam at each step."""
    rule = OPTIMIZERS[name]()
    expected = [rule.constants(0.1, step, decay) for step in (1, 7) for decay in (True, False)]
    monkeypatch.setattr("mlp.formulas.optimizers.check_settings", None)
    found = [rule.constants(0.1, step, decay) for step in (1, 7) for decay in (True, False)]
    assert found == expected


def test_adamw_is_adam_decayed():
    """To the bit, and so is a factor on the decay."""
    settings = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}
    adamw, decayed = OPTIMIZERS["adamw"](**settings), Decayed(Adam(**settings), 0.01)
    np.testing.assert_array_equal(trajectory(adamw, wavy, 0.1), trajectory(decayed, wavy, 0.1))
    assert (decayed.learning_rate, decayed.initial(0.1)) == (1e-3, (0.0, 0.0))
    for rule in (adamw, decayed):
        (keep, *_), (kept, *_) = rule.constants(0.1, 1, 2.5), rule.constants(0.1, 1, 0.0)
        assert (keep, kept) == (1.0 - 0.1 * 0.01 * 2.5, 1.0)


@rules
def test_decay_comes_before_any_rule(name):
    """The step of the rule alone, from weights that were multiplied by 1 - eta weight_decay."""
    rule = OPTIMIZERS[name]()
    g, state = wavy(START), [np.full(START.shape, x) for x in rule.initial(0.1)]
    found = Decayed(rule, 0.5)
    shorter = 0.95 * START
    expected = rule.update(np, shorter, g, *state, *rule.constants(0.1, 1))
    actual = found.update(np, START, g, *state, *found.constants(0.1, 1))
    np.testing.assert_array_equal(actual, expected)


# ------------------------------------------------------------------ PyTorch's

# The name in torch.optim, our settings, its settings.
IN_TORCH = {
    "sgd": ("SGD", {}, {}),
    "momentum": ("SGD", {}, {"momentum": 0.9}),
    "nesterov": ("SGD", {}, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": ("RMSprop", {}, {"alpha": 0.9}),
    "adam": ("Adam", {}, {}),
    "adamw": ("AdamW", {"weight_decay": 0.3}, {"weight_decay": 0.3}),
    "amsgrad": ("Adam", {}, {"amsgrad": True}),
    "adamax": ("Adamax", {}, {}),
    "nadam": ("NAdam", {}, {}),
    "radam": ("RAdam", {}, {}),
    "adagrad": ("Adagrad", {"start": 0.1}, {"initial_accumulator_value": 0.1}),
    "adadelta": ("Adadelta", {}, {}),
    "rprop": ("Rprop", {}, {}),
}


@pytest.mark.parametrize("name", IN_TORCH)
def test_equals_torch_over_100_steps(name):
    """In float64, to 1e-6. Momentum's steps are PyTorch's while eta is constant."""
    torch = pytest.importorskip("torch")
    theirs, ours, settings = IN_TORCH[name]
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, theirs)([w], lr=0.02, **settings)
    expected = []
    for _ in range(100):
        w.grad = torch.tensor(wavy(w.detach().numpy()))
        optimizer.step()
        expected.append(w.detach().numpy().copy())
    rule, state = OPTIMIZERS[name](**ours), []
    w, state = START, [np.full(START.shape, x) for x in rule.initial(0.02)]
    for step, there in enumerate(expected, start=1):
        new = rule.update(np, w, wavy(w), *state, *rule.constants(0.02, step))
        w, *state = new if isinstance(new, tuple) else (new,)
        np.testing.assert_allclose(w, there, rtol=1e-6, atol=1e-6)


def test_adamw_without_decay_is_adam():
    settings = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}
    adam, adamw = OPTIMIZERS["adam"](**settings), OPTIMIZERS["adamw"](**settings)
    for step in (1, 2, 50):
        assert adamw.constants(0.1, step, decay=False) == (1.0, *adam.constants(0.1, step))


# ------------------------------------------------------------------ the usual learning rate


class Signs:
    """A rule of the user's."""

    state = ()

    def initial(self, eta):
        return ()

    def constants(self, eta, step, decay=True):
        return (eta,)

    def update(self, xp, w, g, eta):
        return w - eta * xp.sign(g)


@rules
def test_the_usual_rate_is_the_rule_s_however_it_is_given(name):
    expected = OPTIMIZERS[name].learning_rate
    for settings in SETTINGS.get(name, [{}]):
        for given in ({"name": name} | settings, OPTIMIZERS[name](**settings)):
            assert Settings(optimizer=given).rate() == expected
            assert Settings(optimizer=given, learning_rate=0.3).rate() == 0.3


def test_a_rule_of_ones_own_says_its_rate_or_is_told_one():
    with pytest.raises(InputError, match="an optimizer of your own needs learning_rate"):
        Settings(optimizer=Signs()).rate()
    assert Settings(optimizer=Signs(), learning_rate=0.3).rate() == 0.3
    Known = type("Known", (Signs,), {"learning_rate": 0.25})
    assert Settings(optimizer=Known()).rate() == 0.25


# ------------------------------------------------------------------ settings

CASES = [
    (name, field.name)
    for name, rule in OPTIMIZERS.items()
    for field in fields(rule)
    if isinstance(field.default, float)
]


@pytest.mark.parametrize(("name", "setting"), CASES)
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_bad_settings_are_named(name, setting, value):
    with pytest.raises(InputError, match=rf"optimizer '{name}'.*{setting}.*{value}"):
        OPTIMIZERS[name](**{setting: value})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "momentum", "momentum": 1.0}, "momentum must be in [0, 1), not 1.0"),
        ({"name": "adam", "beta_2": 1.0}, "beta_2 must be in [0, 1), not 1.0"),
        ({"name": "adam", "epsilon": 0.0}, "epsilon must be above 0, not 0.0"),
        ({"name": "rprop", "grow": 1.0}, "0 < shrink < 1 < grow, not 0.5 and 1.0"),
        ({"name": "rprop", "shrink": 0.0}, "0 < shrink < 1 < grow, not 0.0 and 1.2"),
        ({"name": "rprop", "smallest": 9.0, "largest": 2.0}, "smallest 9.0 is above largest 2.0"),
        ({"name": "momentun"}, "unknown optimizer 'momentun'; did you mean 'momentum'?"),
        ({"name": "adam", "beta1": 0.9}, "optimizer 'adam' has no setting 'beta1'; did you mean"),
    ],
)
def test_what_is_no_optimizer(spec, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make(OPTIMIZERS, spec, "optimizer")
