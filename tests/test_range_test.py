"""The range test of the learning rate: what it tries, what it suggests, what it leaves alone."""

import numpy as np
import pytest
from typer.testing import CliRunner

from mlp import Dense, InputError, Model, Network, find_learning_rate, train
from mlp.app.cli import app

rng = np.random.default_rng(0)
X = rng.normal(size=(120, 3))
T = np.tanh(X[:, :1] - X[:, 1:2])


def model(backend="numpy"):
    net = Network(3, [Dense(8, "tanh"), Dense(1)])
    return Model(net, "mean_squared_error", seed=1, dtype="float64", backend=backend)


@pytest.mark.thorough_on("strict:device1")
@pytest.mark.parametrize("options", [{}, {"batch_size": "full"}, {"accumulate": 2}])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "momentum", "lion"])
def test_the_suggested_rate_trains(backend, optimizer, options):
    """Rates grow by one factor; the suggestion is where the loss still falls, and it trains."""
    one = model(backend)
    before = backend.to_numpy(one.w).copy()
    found = find_learning_rate(one, X, T, optimizer=optimizer, **options)
    np.testing.assert_array_equal(backend.to_numpy(one.w), before)
    steps = np.unique(np.log(found.rates))
    assert np.ptp(np.diff(steps)) < 1e-9
    lowest = found.rates[int(np.argmin(found.losses))]
    assert found.rates[0] == pytest.approx(1e-7)
    assert found.rates[0] < found.suggestion <= lowest
    history = train(
        one, X, T, optimizer=optimizer, learning_rate=found.suggestion, epochs=20, **options
    ).history["loss"]
    assert history[-1] < history[0]


def test_the_loss_of_each_step_is_that_of_training():
    """Where the rate is too low to change anything it is the loss as it stands, smoothed."""
    found = find_learning_rate(
        model(), X, T, batch_size="full", lowest=1e-300, highest=1e-290, steps=12
    )
    np.testing.assert_allclose(found.losses, model().evaluate(X, T)["loss"], rtol=1e-9)
    assert len(found.rates) == 12


def test_a_loss_that_never_falls_suggests_nothing():
    found = find_learning_rate(model(), X, T, optimizer="sgd", lowest=1e3, highest=1e9)
    assert found.suggestion is None
    assert "the loss never fell" in str(found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lowest": 0.0}, "0 < lowest < highest, not 0.0 and 10.0"),
        ({"highest": 1e-9}, "0 < lowest < highest, not 1e-07 and 1e-09"),
        ({"lowest": "a"}, "0 < lowest < highest, not 'a' and 10.0"),
        ({"steps": 3}, "steps must be a whole number from 10 on, not 3"),
        ({"optimizer": "rprop"}, "'rprop' finds its own step sizes"),
        ({"optimiser": "adam"}, "did you mean 'optimizer'"),
    ],
)
def test_what_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        find_learning_rate(model(), X, T, **given)


@pytest.mark.pictures
def test_the_command(tmp_path, monkeypatch):
    """It says a rate, leaves a picture where matplotlib is, and touches no run."""
    monkeypatch.chdir(tmp_path)
    lines = [",".join(map(str, row)) for row in np.hstack([X, T]).round(4)]
    (tmp_path / "data.csv").write_text("\n".join(["a,b,c,y", *lines]) + "\n")
    (tmp_path / "my.toml").write_text(
        '[data]\nfile = "data.csv"\ntarget = "y"\nvalidation = 0.2\n[[layers]]\nunits = 8\n'
        'activation = "tanh"\n[[layers]]\nactivation = "identity"\n[training]\n'
        'loss = "mean_squared_error"\npatience = 3\nschedule = "cosine"\n'
        'watch = "validation_loss"\n'
    )
    result = CliRunner().invoke(app, ["find-lr", "my.toml", "--set", "training.epochs=3"])
    assert result.exit_code == 0, result.output
    assert "a learning rate of" in result.output
    left = {path.name for path in tmp_path.iterdir()} - {"data.csv", "my.toml"}
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert left == set()
    else:
        assert left == {"my-learning-rate.png"}
