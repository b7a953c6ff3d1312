"""The loop: batches and their order, what stops it, what it reports, and what it refuses."""

import math
import os
import re
import signal
import threading
import warnings

import numpy as np
import pytest

from mlp import Dense, InputError, Model, Network, Settings, train
from mlp.data.order import order, split
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS


def data(n=20, outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, np.tanh(X @ rng.normal(size=(3, outputs)))


def regression(backend="numpy", outputs=1, **options):
    net = Network(3, [Dense(4, "tanh"), Dense(outputs)])
    return Model(net, "mean_squared_error", seed=1, backend=backend, dtype="float64", **options)


def classifier(**options):
    net = Network(3, [Dense(4, "tanh"), Dense(2, "softmax")])
    return Model(net, "cross_entropy", seed=1, **options)


class On:
    """A callback from functions: On(batch_end=...)."""

    def __init__(self, **events):
        for name, function in events.items():
            setattr(self, f"on_{name}", function)


# -------------------------------------------------------------------------------- epochs, batches


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 20), (6, 4), (20, 1), (99, 1), (None, 1)])
def test_steps_of_an_epoch(batch_size, batches):
    """Stochastic, mini-batch with a shorter last one, full batch: n / batch_size, rounded up."""
    seen = []
    watch = On(run_start=lambda run: seen.append((run.samples, run.batches)))
    result = train(regression(), *data(), batch_size=batch_size, epochs=3, callbacks=[watch])
    assert seen == [(20, batches)]
    assert (result.state.epoch, result.state.step) == (3, 3 * batches)
    assert result.history["epoch"] == [1, 2, 3]
    assert result.stopped == "all 3 epochs are done"
    assert not result.diverged


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 6, None])
def test_batches_and_their_order(backend, batch_size, shuffle):
    """Gradient descent by hand over the rows of each batch, in the order of (seed, epoch)."""
    model, (X, t), eta = regression(backend), data(), 0.1
    w, losses = backend.to_numpy(model.w).copy(), []
    by_hand = regression("numpy")
    for epoch in range(3):
        mixed = shuffle and batch_size is not None
        rows = order(7, epoch, 20) if mixed else np.arange(20)
        size, values = batch_size or 20, []
        for start in range(0, 20, size):
            chosen = rows[start : start + size]
            by_hand.w = w
            E, g = by_hand.value_and_gradient(X[chosen], t[chosen])
            w = w - eta * g
            values.append(E * len(chosen))
        losses.append(sum(values) / 20)
    result = train(
        model, X, t, optimizer="sgd", learning_rate=eta, batch_size=batch_size, epochs=3,
        shuffle=shuffle, seed=7,
    )  # fmt: skip
    np.testing.assert_allclose(backend.to_numpy(result.model.w), w, rtol=1e-11)
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-11)


def test_no_epochs_is_no_change():
    model = regression()
    result = train(model, *data(), epochs=0)
    assert (result.model.w == model.w).all()
    assert (result.history, result.state.step) == ({}, 0)


def test_the_given_model_stays_as_it_is():
    model = regression()
    before = model.w.copy()
    result = train(model, *data(), epochs=2)
    assert (model.w == before).all()
    assert (result.model.w != before).any()


def test_the_sum_convention_adds_up_over_batches():
    """E of the epoch: the sum over batches for a sum over samples."""
    X, t = data()
    net = Network(3, [Dense(1)])
    w = net.initial_weights(0)
    for loss in ("half_squared_error", "mean_squared_error"):
        model = Model(net, loss, w=w, dtype="float64")
        one = train(model, X, t, batch_size=6, epochs=1, optimizer="sgd", learning_rate=1e-12)
        np.testing.assert_allclose(
            one.history["loss"], [model.value_and_gradient(X, t)[0]], rtol=1e-6
        )


# ---------------------------------------------------------------------------------- what stops it


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("n", "batch_size"), [(20, 6), (20, 20), (7, 2), (30, 29)])
def test_the_loss_of_an_epoch_is_that_of_its_batches(n, batch_size, shared, weighted):
    """The mean over batches of what each was descended by, penalties included: by samples where
    the batch's samples share the penalty."""
    (X, t), rng = data(n), np.random.default_rng(3)
    s = rng.uniform(0.5, 2.0, n) if weighted else None
    net = Network(3, [Dense(4, "tanh", l2=0.3), Dense(1, l1=0.1)])
    one = Model(net, "mean_squared_error", dtype="float64", shared_penalties=shared)
    options = {"epochs": 1, "batch_size": batch_size, "learning_rate": 1e-300, "seed": 4}
    found = train(one, X, t, sample_weight=s, optimizer="sgd", **options).history["loss"][0]
    indices = np.split(order(4, 0, n), range(batch_size, n, batch_size))
    losses, penalties, weights = [], [], []
    for rows in indices if batch_size < n else [np.arange(n)]:
        some = None if s is None else s[rows]
        E, _ = one.value_and_gradient(X[rows], t[rows], some)
        losses.append(one.evaluate(X[rows], t[rows], some)["loss"])
        penalties.append(E - losses[-1])
        weights.append(len(rows) if s is None else s[rows].sum())
    expected = np.average(losses, weights=weights)
    expected += np.average(penalties, weights=weights if shared else None)
    assert found == pytest.approx(expected, rel=1e-12)


def test_target_loss():
    """Stops once E over the training set, measured after the epoch, is not above it."""
    X, t = data()
    result = train(regression(), X, t, epochs=500, learning_rate=0.05, target_loss=0.05)
    assert result.stopped == "the wanted loss is reached"
    last = result.history["train_loss"]
    assert last[-1] <= 0.05 < last[-2]
    np.testing.assert_allclose(last[-1], result.model.evaluate(X, t)["loss"], rtol=1e-12)


def test_patience_restores_the_best_weights():
    """The model is the best of the watched loss; the state keeps the last step's weights."""
    X, t = data(40)
    noise = np.random.default_rng(3).normal(size=t.shape)
    weights = {}

    def note(run):
        weights[run.state.epoch] = run.model.w.copy()

    result = train(
        regression(), X, t + noise, validation=0.5, learning_rate=0.1, epochs=400, patience=15,
        callbacks=[note],
    )  # fmt: skip
    losses = result.history["validation_loss"]
    best = int(np.argmin(losses)) + 1
    last = len(losses)
    assert last == best + 15 < 400
    assert (result.state.best_epoch, result.state.best_loss) == (best, min(losses))
    assert result.stopped == (
        f"no better validation loss for 15 epochs (the best was in epoch {best})"
    )
    assert (result.model.w == weights[best]).all()
    assert (result.state.w == weights[last]).all()
    assert (weights[best] != weights[last]).any()


def test_patience_without_restoring():
    options = {"patience": 2, "min_delta": 10.0, "watch": "loss", "validation": 0.2}
    result = train(regression(), *data(), epochs=9, restore_best=False, **options)
    assert result.state.epoch == 3
    assert result.stopped == "no better loss for 2 epochs (the best was in epoch 1)"
    assert (result.model.w == result.state.w).all()


@pytest.mark.parametrize("event", ["run_start", "epoch_start", "batch_end", "epoch_end"])
def test_a_callback_stops_the_run(event):
    steps = {"run_start": 0, "epoch_start": 0, "batch_end": 1, "epoch_end": 4}[event]
    stop = On(**{event: lambda run: run.stop("that is enough")})
    result = train(regression(), *data(), batch_size=6, epochs=3, callbacks=[stop])
    assert (result.stopped, result.state.step) == ("that is enough", steps)
    assert result.history.get("epoch", []) == ([1] if event == "epoch_end" else [])


def test_the_first_reason_counts():
    stop = On(batch_end=lambda run: run.stop("first"), run_end=lambda run: run.stop("last"))
    assert train(regression(), *data(), callbacks=[stop]).stopped == "first"


def test_order_of_events():
    events = []
    names = ("run_start", "epoch_start", "batch_start", "batch_end", "epoch_end", "run_end")
    calls = {
        name: lambda run, name=name: events.append((name, run.state.epoch, run.state.batch))
        for name in names
    }
    rows = []
    train(
        regression(), *data(), batch_size=10, epochs=2,
        callbacks=[On(**calls), lambda run: rows.append(dict(run.last))],
    )  # fmt: skip
    epoch = [
        [
            ("epoch_start", e, 0),
            ("batch_start", e, 0),
            ("batch_end", e, 1),
            ("batch_start", e, 1),
            ("batch_end", e, 2),
            ("epoch_end", e + 1, 0),
        ]
        for e in (0, 1)
    ]
    assert events == [("run_start", 0, 0), *epoch[0], *epoch[1], ("run_end", 2, 0)]
    assert [row["epoch"] for row in rows] == [1, 2]  # a plain function: when an epoch ends


def test_a_callback_may_change_the_learning_rate():
    def halve(run):
        run.state.learning_rate /= 2

    history = train(regression(), *data(), epochs=3, learning_rate=0.1, callbacks=[halve]).history
    assert history["learning_rate"] == [0.1, 0.05, 0.025]


def test_an_error_in_a_callback_is_the_users_to_see():
    def fail(run):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train(regression(), *data(), callbacks=[fail])


# ------------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_ends_the_run_and_keeps_what_was_learned():
    before = signal.getsignal(signal.SIGINT)
    weights = {}

    def interrupt(run):
        weights[run.state.step] = run.model.w.copy()
        if run.state.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    result = train(
        regression(), *data(), batch_size=5, epochs=50, callbacks=[On(batch_end=interrupt)]
    )
    assert result.stopped == "interrupted; what was learned so far is kept"
    assert (result.state.step, result.state.epoch, result.state.batch) == (6, 1, 2)
    assert (result.model.w == weights[6]).all()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_raises():
    def interrupt(run):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(regression(), *data(), callbacks=[On(batch_end=interrupt)])
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread():
    """Signals belong to the main thread; elsewhere a run does without."""
    results = []
    thread = threading.Thread(target=lambda: results.append(train(regression(), *data(), epochs=2)))
    thread.start()
    thread.join()
    assert results[0].state.epoch == 2


# ------------------------------------------------------------------------ validation and weights


def test_validation_share(backend):
    """The rows that `split` holds out by the seed, not trained on, measured after each epoch."""
    X, t = data()
    kept, held_out = split(20, 0.25, 7)
    options = {"epochs": 2, "batch_size": None, "seed": 7, "learning_rate": 0.1}
    result = train(regression(backend), X, t, validation=0.25, **options)
    alone = train(regression(backend), X[kept], t[kept], **options)
    w, expected = backend.to_numpy(result.model.w), backend.to_numpy(alone.model.w)
    np.testing.assert_allclose(w, expected, rtol=1e-12)
    metrics = result.model.evaluate(X[held_out], t[held_out])
    for name in ("loss", "mse", "r2"):
        np.testing.assert_allclose(
            result.history[f"validation_{name}"][-1], metrics[name], rtol=1e-12
        )
    on_device = train(
        regression(backend), backend.asarray(X), backend.asarray(t), validation=0.25, **options
    )
    np.testing.assert_allclose(backend.to_numpy(on_device.model.w), expected, rtol=1e-12)


def test_validation_data():
    X, t = data()
    X_v, t_v = data(9, seed=4)
    result = train(regression(), X, t, validation=(X_v, t_v), epochs=3)
    plain = train(regression(), X, t, epochs=3)
    assert (result.model.w == plain.model.w).all()
    assert result.history["validation_loss"][-1] == result.model.evaluate(X_v, t_v)["loss"]
    assert "validation_loss" not in plain.history


@pytest.mark.parametrize("batch_size", [1, None])
@pytest.mark.parametrize("loss", ["half_squared_error", "half_mean_squared_error"])
def test_sample_weights_are_repeated_rows(backend, loss, batch_size):
    """A row of weight 3 is three rows: the same gradient in a full batch, the same epoch loss."""
    X, t = data()
    s = np.random.default_rng(5).integers(0, 4, 20)
    X_r, t_r = np.repeat(X, s, axis=0), np.repeat(t, s, axis=0)
    net = Network(3, [Dense(4, "tanh", l2=0.01), Dense(1)])
    model = Model(net, loss, seed=1, backend=backend, dtype="float64")
    options = {"optimizer": "sgd", "learning_rate": 0.01, "epochs": 3}
    if batch_size is None:
        weighted = train(model, X, t, sample_weight=s, batch_size=None, **options)
        repeated = train(model, X_r, t_r, batch_size=None, **options)
        np.testing.assert_allclose(
            backend.to_numpy(weighted.model.w), backend.to_numpy(repeated.model.w), rtol=1e-11
        )
        np.testing.assert_allclose(weighted.history["loss"], repeated.history["loss"], rtol=1e-11)
    else:
        one = train(model, X, t, sample_weight=s, batch_size=1, **options | {"learning_rate": 1e-9})
        expected, _ = model.value_and_gradient(X_r, t_r)
        np.testing.assert_allclose(one.history["loss"], [expected] * 3, rtol=1e-6)


def test_equal_weights_are_no_weights():
    X, t = data()
    plain = train(regression(), X, t, epochs=3, validation=0.2)
    weighted = train(regression(), X, t, epochs=3, validation=0.2, sample_weight=np.full(20, 0.7))
    np.testing.assert_allclose(weighted.model.w, plain.model.w, rtol=1e-12)
    np.testing.assert_allclose(
        weighted.history["validation_loss"], plain.history["validation_loss"], rtol=1e-12
    )


# ----------------------------------------------------------------------- learning rates, schedules


def test_schedule_in_the_history():
    """The learning rate of the last step of each epoch: 4 steps of 5 rows an epoch."""

    def rates(**options):
        history = train(
            regression(), *data(), batch_size=5, learning_rate=0.1, optimizer="sgd", **options
        ).history
        return np.array(history["learning_rate"]) / 0.1

    np.testing.assert_allclose(rates(epochs=3), [1, 1, 1])
    step = {"name": "step", "every": 2, "factor": 0.1}
    np.testing.assert_allclose(rates(epochs=5, schedule=step), [1, 1, 0.1, 0.1, 0.01])
    last = np.array([3, 7, 11]) / 4.0  # the time in epochs of the last step of each
    exponential = {"name": "exponential", "factor": 0.5}
    np.testing.assert_allclose(rates(epochs=3, schedule=exponential), 0.5**last)
    cosine = (1 + np.cos(np.pi * last / 3)) / 2  # by its name alone it falls over the whole run
    np.testing.assert_allclose(rates(epochs=3, schedule="cosine"), cosine)
    warm = rates(epochs=3, schedule="cosine", warmup=1.0)
    np.testing.assert_allclose(warm, [1.0, *(1 + np.cos(np.pi * np.array([3, 7]) / 8)) / 2])
    np.testing.assert_allclose(rates(epochs=2, warmup=2), [0.5, 1.0])
    own = rates(epochs=2, schedule=lambda step, steps: 1.0 / (1 + step))
    np.testing.assert_allclose(own, [1 / 4, 1 / 8])


def test_usual_learning_rates():
    for name in OPTIMIZERS:
        for optimizer in (name, {"name": name}, OPTIMIZERS[name]()):
            assert Settings(optimizer=optimizer).rate() == OPTIMIZERS[name].learning_rate


# -------------------------------------------------------------------------------- non-finite loss


@pytest.mark.parametrize("batch_size", [5, None])
def test_a_loss_that_is_not_finite(backend, batch_size):
    """The run ends with the last finite weights, says so, and says what to try."""
    X, t = data()
    weights = []

    net = Network(3, [Dense(4, "relu"), Dense(1)])
    model = Model(net, "half_squared_error", seed=1, backend=backend, dtype="float32")
    note = On(epoch_start=lambda run: weights.append(backend.to_numpy(run.model.w).copy()))
    said = (
        r"the loss became non-finite in epoch (\d+) \(learning rate 3\); the weights from before "
        r"that epoch are kept: try a learning rate of 0\.3, scale the inputs and targets or use "
        r"reduction 'mean'"
    )
    with pytest.warns(RuntimeWarning, match=said) as caught:
        result = train(
            model, X, t, optimizer="sgd", learning_rate=3.0, batch_size=batch_size, epochs=100,
            callbacks=[note],
        )  # fmt: skip
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the caller's line, not one of the library's
    assert result.diverged
    epoch = int(re.fullmatch(said, result.stopped)[1])
    assert result.state.epoch == epoch - 1 == len(result.history.get("loss", []))
    w = backend.to_numpy(result.model.w)
    assert np.isfinite(w).all()
    assert (w == weights[-1]).all()
    assert np.isfinite(result.history.get("loss", [])).all()


def test_stopped_in_an_epoch_that_is_not_finite():
    """Ctrl-C, or a callback, in the middle of it: the weights that are kept are finite too."""
    X, t = data()
    model = Model(Network(3, [Dense(1)]), "mean_squared_error", dtype="float32")
    stop = On(batch_end=lambda run: run.stop("enough") if run.state.batch == 3 else None)
    with pytest.warns(RuntimeWarning, match=r"in epoch 1 .* scale the inputs and targets$"):
        result = train(
            model, X, t, optimizer="sgd", learning_rate=1e25, batch_size=5, callbacks=[stop]
        )
    assert result.diverged
    assert (result.model.w == model.w).all()


# --------------------------------------------------------------------------- bad settings and data

X, T = data()
LABELS = (T[:, 0] > 0).astype(int)


BAD_SETTINGS = {
    "epoch=3": r"train has no setting 'epoch'; did you mean 'epochs'\?",
    "lerning_rate=3": r"train has no setting 'lerning_rate'; did you mean 'learning_rate'\?",
    "epochs=-1": r"epochs must be a whole number from 0 on, not -1",
    "epochs=None": r"epochs must be a whole number from 0 on, not None",
    "epochs=2.5": r"epochs must be a whole number from 0 on, not 2.5",
    "batch_size=0": r"batch_size must be a whole number from 1 on, not 0",
    "batch_size=True": r"batch_size must be a whole number from 1 on, not True",
    "patience=0": r"patience must be a whole number from 1 on, not 0",
    "seed=-1": r"seed must be a whole number from 0 on, not -1",
    "seed=None": r"seed must be a whole number from 0 on, not None",
    "learning_rate=0": r"learning_rate must be above 0, not 0",
    "learning_rate='0.1'": r"learning_rate must be a number, not '0.1'",
    "learning_rate=math.nan": r"learning_rate must be a number, not nan",
    "target_loss=math.nan": r"target_loss must be a number, not nan",
    "min_delta=-1": r"min_delta must be 0 or above, not -1",
    "warmup=-1": r"warmup must be 0 epochs or more, not -1",
    "watch='acuracy'": r"watch is a loss or a metric, not 'acuracy'; did you mean 'accuracy'",
    "watch='validation_loss'": r"watch = 'validation_loss' needs validation data",
    "optimizer='adamm'": r"unknown optimizer 'adamm'; did you mean 'adam'\?",
    "optimizer={'name': 'adam', 'beta1': 0}": r"no setting 'beta1'; did you mean 'beta_1'\?",
    "optimizer=object()": r"an optimizer is a name or an object with state, initial, constants",
    "schedule='cosin'": r"unknown schedule 'cosin'; did you mean 'cosine'\?",
    "optimizer='rprop', warmup=1": r"'rprop' finds its own step sizes: remove the schedule and",
    "validation='a'": r"validation is the share of the rows to hold out or a pair \(X, t\)",
    "validation=(X, T, T)": r"validation is the share of the rows to hold out or a pair \(X, t\)",
    "validation=1.5": r"the held-out fraction must lie between 0 and 1, not be 1.5",
    "validation=0.001": r"fraction 0.001 of 20 rows leaves 20 to train on and 0 held out",
    "validation=(X[:, :2], T)": r"layer 1 expects 3 inputs, validation X has 2 columns",
    "validation=(X, T[:5])": r"X has 20 rows, validation t has 5",
    "sample_weight=[1, 2]": r"X has 20 rows, sample_weight has 2",
    "sample_weight=-np.ones(20)": r"sample_weight must be finite, 0 or above, and not all 0",
    "sample_weight=np.zeros(20)": r"sample_weight must be finite, 0 or above, and not all 0",
    "sample_weight=['a'] * 20": r"sample_weight must be numbers, not <U1",
    "callbacks=[3]": r"a callback is a function or has one of on_run_start, .*: 3",
}


@pytest.mark.parametrize("options", BAD_SETTINGS)
def test_bad_settings(options):
    """One message that names value, place and cure, whether by options or by a Settings."""
    made = eval(f"dict({options})")
    with pytest.raises(InputError, match=BAD_SETTINGS[options]):
        train(regression(), X, T, **made)
    with pytest.raises(InputError, match=BAD_SETTINGS[options]):
        train(regression(), X, T, settings=Settings(), **made)


class OwnRule:
    """w <- w - eta sign(g), an optimizer of the user's own."""

    state = ()

    def initial(self, eta):
        return ()

    def constants(self, eta, step, decay=True):
        return (eta,)

    def update(self, xp, w, g, eta):
        return w - eta * xp.sign(g)


def test_an_optimizer_of_ones_own(backend):
    model = regression(backend)
    with pytest.raises(InputError, match="an optimizer of your own needs learning_rate"):
        train(model, X, T, optimizer=OwnRule())
    result = train(model, X, T, optimizer=OwnRule(), learning_rate=0.1, batch_size=None, epochs=1)
    _, g = model.value_and_gradient(X, T)
    expected = backend.to_numpy(model.w) - 0.1 * np.sign(backend.to_numpy(g))
    np.testing.assert_allclose(backend.to_numpy(result.model.w), expected, rtol=1e-13)


def holey(value, *places):
    x = X.copy()
    for row, column in places:
        x[row, column] = value
    return x


BAD_DATA = {  # model, X, t: message
    "columns": (regression, X[:, :2], T, r"layer 1 expects 3 inputs, X has 2 columns"),
    "one_row": (regression, X[0], T, r"X has shape \(3,\), expected \(rows, 3 columns\); one row"),
    "no_rows": (regression, X[:0], T[:0], r"X has no rows"),
    "text": (regression, X.astype(str), T, r"X: inputs must be numbers, not <U"),
    "nan": (
        regression,
        holey(np.nan, (3, 1), (4, 1)),
        T,
        r"X: 2 of 20 rows have a missing, NaN or infinite value, in column 'column 1' \(2\); fill",
    ),
    "infinity": (regression, holey(np.inf, (3, 2)), T, r"1 of 20 rows .* 'column 2' \(1\)"),
    "named_column": (
        lambda: regression(columns=("age", "rooms", "rent")),
        holey(np.nan, (3, 1)),
        T,
        r"in column 'rooms' \(1\)",
    ),
    "rows": (regression, X, T[:5], r"X has 20 rows, t has 5"),
    "t_columns": (regression, X, np.zeros((20, 2)), r"t has 2 columns, the last layer has 1 units"),
    "t_axes": (regression, X, np.zeros((20, 1, 1)), r"t has shape \(20, 1, 1\), expected \(rows, "),
    "t_one_number": (regression, X, 1.0, r"t has shape \(1, 1\)|t has shape \(\)"),
    "t_text": (regression, X, ["a"] * 20, r"t: targets must be numbers, not 'a'; encode the lab"),
    "t_nan": (regression, X, np.where(T > 0, T, np.nan), r"t: \d+ values are NaN or infinite"),
    "class_above": (classifier, X, LABELS * 2, r"t: 2 is not a class number from 0 to 1 \(the la"),
    "class_below": (classifier, X, LABELS - 1, r"t: -1 is not a class number from 0 to 1"),
    "class_fraction": (classifier, X, LABELS / 2, r"t: 0.5 is not a class number from 0 to 1"),
    "class_nan": (classifier, X, np.where(LABELS, np.nan, 0.0), r"t: nan is not a class number"),
    "class_column": (classifier, X, LABELS[:, None], r"t has 1 columns, the last layer has 2 uni"),
    "one_hot": (
        classifier,
        X,
        np.ones((20, 2)),
        r"t: rows of class shares must be 0 or above and sum to 1 \(one-hot\), or give class num",
    ),
    "label": (
        lambda: Model(Network(3, [Dense(1)]), "binary_cross_entropy"),
        X,
        LABELS * 2,
        r"t: 2 is not a label from 0 to 1, which this loss needs; for numbers of any size use 'mea",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
@pytest.mark.parametrize("door", ["train", "evaluate", "value_and_gradient"])
def test_bad_data(name, door):
    """Refused at every door that takes X and t, before anything is computed."""
    model, x, t, message = BAD_DATA[name]
    model = model()
    use = {"train": lambda: train(model, x, t), "evaluate": lambda: model.evaluate(x, t)}.get(
        door, lambda: model.value_and_gradient(x, t)
    )
    with pytest.raises(InputError, match=message):
        use()


def test_bad_data_on_a_device(backend):
    """NaN is found there too, and named."""
    with pytest.raises(InputError, match=r"X: 1 of 20 rows has a .* in column 'column 1' \(1\)"):
        train(regression(backend), backend.asarray(holey(np.nan, (3, 1))), T)


def test_a_state_that_does_not_fit():
    state = train(regression(), X, T, epochs=1).state
    with pytest.raises(InputError, match=r"optimizer vectors \['m', 'v'\], 'sgd' has \[\]"):
        train(regression(), X, T, state=state, optimizer="sgd")
    bigger = Model(Network(3, [Dense(9, "tanh"), Dense(1)]), "mean_squared_error")
    with pytest.raises(InputError, match=r"has 21 parameters, the network 46"):
        train(bigger, X, T, state=state)
    stop = On(batch_end=lambda run: run.stop("here"))
    state = train(regression(), X, T, batch_size=5, callbacks=[stop]).state
    with pytest.raises(InputError, match=r"has 4 batches an epoch, these data .* have 2"):
        train(regression(), X, T, batch_size=10, state=state)


def test_whole_numbers_of_numpy_are_whole_numbers():
    result = train(regression(), X, T, epochs=np.int64(2), batch_size=np.int32(7), seed=np.uint8(3))
    assert result.state.step == 6


def test_losses_name_the_outputs_they_fit():
    """A loss that does not fit the output says which does."""
    for name, loss in LOSSES.items():
        unit = getattr(loss, "unit", None)
        if unit is None:
            continue
        with pytest.raises(InputError, match=f"'{unit}' or 'identity', not 'tanh'; with this"):
            Model(Network(3, [Dense(2, "tanh")]), name)
    with pytest.raises(InputError, match=r"one output for each class.*'binary_cross_entropy'"):
        Model(Network(3, [Dense(1)]), "cross_entropy")


def test_nothing_is_warned_of_in_a_common_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train(classifier(), X, LABELS, epochs=3, validation=0.2)
    assert math.isfinite(result.history["validation_loss"][-1])


@pytest.mark.parametrize(
    "t", [np.zeros(6, int), np.tile([0.0, 1.0], (6, 1))], ids=["numbers", "rows"]
)
def test_one_class_only_is_refused(t):
    model = Model(Network(1, [Dense(2, "softmax")]), "cross_entropy")
    with pytest.raises(InputError, match="t holds only one class; a classifier needs at least two"):
        train(model, np.ones((6, 1)), t)
