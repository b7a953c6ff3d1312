"""Progress: a bar on a terminal, plain lines elsewhere, and no look at the device for it."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from backends import Memory
from mlp.app.progress import LINES, Bar, Lines, progress
from mlp.layers.dense import Dense
from mlp.model import Model
from mlp.network.graph import Network
from mlp.training.loop import train
from mlp.training.memory_plan import Plan

PLAN = Plan({"weights": 8}, 1, 1, (False, False), "CPU", Memory(), 0, None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, quiet=False, validation=None, **options):
    """Train a little; what the stream shows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    model = Model(Network(2, [Dense(2, "softmax")]), "cross_entropy", backend="numpy")
    with progress(quiet, stream) as callbacks:
        train(
            model,
            X,
            (X[:, 0] > 0).astype(int),
            validation=validation,
            callbacks=callbacks,
            batch_size=8,
            **options,
        )
    return stream.getvalue()


def epochs(text):
    return [int(number) for number in re.findall(r"^epoch +(\d+)/", text, flags=re.MULTILINE)]


def test_a_line_an_epoch_with_loss_metric_and_speed():
    memory, *lines = run(io.StringIO(), epochs=3, validation=0.25).splitlines()
    assert re.fullmatch(
        r"memory: [\d.]+ kB of [\d.]+ GB free on CPU, .* \(weights .*\), \d+ threads?", memory
    )
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        pattern = (
            rf"epoch {number}/3  loss \S+  validation \S+ \(accuracy \d\.\d{{4}}\)  "
            r"[\d,]+ samples/s"
        )
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize("total", [1, 19, 20, 21, 50, 99, 1000])
def test_a_long_run_has_about_twenty_lines_evenly_spread_and_the_last(total):
    shown = epochs(run(io.StringIO(), epochs=total))
    assert len(shown) <= LINES + 1
    assert len(shown) >= min(total, LINES // 2)
    assert shown[-1] == total
    assert len(set(np.diff(shown)[:-1].tolist())) <= 1


def test_a_run_that_stops_early_shows_its_last_epoch():
    text = run(io.StringIO(), epochs=1000, target_loss=0.4, learning_rate=0.05)
    shown = epochs(text)
    assert 50 > shown[-1] > 1


def test_quiet_shows_nothing():
    assert run(io.StringIO(), quiet=True, epochs=3) == ""
    assert run(Terminal(), quiet=True, epochs=3) == ""


@pytest.mark.parametrize(("columns", "left"), [("80", "00:"), ("140", "left  loss")])
def test_a_terminal_gets_a_bar(monkeypatch, columns, left):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    text = run(Terminal(), epochs=30, validation=0.25)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    last = re.split(r"[\r\n]+", plain.strip())[-1]
    assert "30/30" in last
    assert left in last
    assert "loss" in last
    assert "accuracy" in last
    assert last.rstrip().endswith("/s")
    assert len(last) <= int(columns)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back


def test_the_bar_goes_away_when_training_fails(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), progress(stream=stream):
        raise KeyboardInterrupt
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h")


def test_the_bar_is_drawn_ten_times_a_second_at_most_and_counts_without_the_device(monkeypatch):
    class Shown:
        drawn = 0
        console = Console(file=io.StringIO())

        def add_task(self, *_, **__):
            return 0

        def update(self, *_, refresh=False, **__):
            self.drawn += refresh

    class Untouchable:
        """A run under way; asking it for weights or losses fails."""

        def __init__(self):
            settings = type("Settings", (), {"epochs": 10})()
            state = type("State", (), {"epoch": 0, "batch": 0})()
            self.settings, self.state, self.batches = settings, state, 1000
            self.threads = 2
            self.plan = PLAN

    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    shown, under_way = Shown(), Untouchable()
    bar = Bar(shown)
    bar.on_run_start(under_way)
    for _ in range(10000):
        clock[0] += 0.001
        bar.on_batch_end(under_way)
    assert bar.done == 10000
    assert 90 <= shown.drawn <= 101


def test_lines_go_on_where_a_resumed_run_stands():
    stream = io.StringIO()
    lines = Lines(stream)
    state = type("State", (), {"epoch": 100})()
    settings = type("Settings", (), {"epochs": 140})()
    about = {"state": state, "settings": settings, "samples": 10, "plan": PLAN, "threads": 1}
    under_way = type("Run", (), about)()
    lines.on_run_start(under_way)
    for epoch in range(101, 141):
        state.epoch = epoch
        under_way.last = {"epoch": epoch, "loss": 1.0, "seconds": 1.0}
        lines.on_epoch_end(under_way)
    lines.on_run_end(under_way)
    assert epochs(stream.getvalue()) == list(range(102, 141, 2))
