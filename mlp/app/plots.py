"""The history of a run as a picture: losses, and the metric where there is one."""

import os
from collections.abc import Mapping, Sequence
from typing import IO, Any

from mlp.formulas.metrics import METRICS

TRAINING, VALIDATION, BEST = "#3b6ea8", "#d1662b", "#8a8a8a"


def plot_history(
    history: Mapping[str, Sequence[float]], path: str | os.PathLike[str] | IO[bytes]
) -> bool:
    """Draw losses and metric over epochs into a PNG; the best epoch is marked.

    history: as in `mlp.Result`. False if matplotlib is not installed or there is nothing
    to draw yet.
    """
    epochs = history.get("epoch", [])
    if not epochs:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    scores = {f"validation_{m.name}": m.label for m in METRICS.values() if m.greater_is_better}
    metric = next((name for name in scores if name in history), None)
    panels = 2 if metric else 1
    figure = Figure(figsize=(4.8 * panels + 0.4, 3.6), dpi=144, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]

    watched = "validation_loss" if "validation_loss" in history else "loss"
    best = min(range(len(epochs)), key=lambda i: history[watched][i])
    _curve(axes[0], epochs, history["loss"], "training loss", TRAINING)
    if "validation_loss" in history:
        _curve(axes[0], epochs, history["validation_loss"], "validation loss", VALIDATION)
    losses = [*history["loss"], *history.get("validation_loss", [])]
    if min(losses) > 0.0 and max(losses) > 8.0 * min(losses):
        axes[0].set_yscale("log")
    _finish(axes[0], "loss", epochs[best], history[watched][best], f"lowest {_words(watched)}")
    if metric:
        _curve(axes[1], epochs, history[metric], f"validation {scores[metric]}", VALIDATION)
        _keep_in_sight(axes[1], history[metric])
        _finish(axes[1], scores[metric], epochs[best], history[metric][best], "")
    figure.savefig(path, format="png")
    return True


def plot_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    suggestion: float | None,
    path: str | os.PathLike[str] | IO[bytes],
) -> bool:
    """Draw the loss over the learning rate of a range test into a PNG; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(5.2, 3.6), dpi=144, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=TRAINING, lw=1.6)
    if suggestion is not None:
        axes.axvline(suggestion, color=BEST, lw=0.9, ls=(0, (4, 3)), label=f"{suggestion:.2g}")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(True, which="major", color="0.9", lw=0.7)
    axes.set_axisbelow(True)
    figure.savefig(path, format="png")
    return True


def _curve(
    axes: Any, epochs: Sequence[float], values: Sequence[float], label: str, color: str
) -> None:
    """A line, with a dot an epoch where there are few."""
    marker = "o" if len(epochs) <= 12 else ""
    shown = list(zip(epochs, values, strict=False))
    axes.plot(*zip(*shown, strict=True), color=color, lw=1.6, marker=marker, ms=3.5, label=label)


def _keep_in_sight(axes: Any, values: Sequence[float]) -> None:
    """A metric of at most 1; a wild start does not flatten the rest."""
    ordered = sorted(values)
    low = ordered[len(ordered) // 20]
    if ordered[0] < low - 1.0:
        axes.set_ylim(bottom=low - 0.1)


def _finish(axes: Any, what: str, epoch: float, value: float, label: str) -> None:
    """The best epoch, names, a light grid, a legend."""
    from matplotlib.ticker import MaxNLocator

    axes.axvline(epoch, color=BEST, lw=0.9, ls=(0, (4, 3)), zorder=0)
    name = f"{label}: {value:.4g} (epoch {epoch:.0f})" if label else f"at that epoch: {value:.4g}"
    axes.plot([epoch], [value], "o", ms=6, mfc="none", mec="black", mew=1.1, ls="", label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(what)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(True, which="major", color="0.9", lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _words(name: str) -> str:
    return "training loss" if name == "loss" else name.replace("_", " ")
