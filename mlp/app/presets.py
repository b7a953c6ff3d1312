"""Presets: what a file leaves out, by the name of a recipe.

    [model]
    preset = "tabular"

stands for the layers, the scalings and the training of `mlp.tabular.recipe.Recipe`, one member of
it; what the file says itself goes before, its ``[[layers]]`` in place of all layers. What follows
from that follows: patience is as long as the epochs, there are no schedules of what there is not.
`mlp init --preset tabular` writes it out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlp.errors import InputError, did_you_mean, shown
from mlp.formulas.losses import get_loss
from mlp.tabular.recipe import Recipe, Task

ROWS = 5_000  # of a table like which epochs and batches are, since its own are not known yet


def tabular(task: Task, training: Mapping[str, Any], layers: Any) -> dict[str, Any]:
    """One member of the estimators for tables."""
    said = {name: training[name] for name in ("epochs", "weight_decay") if name in training}
    found = Recipe(**said).of(task, ROWS).file(task)
    layers = [layer for layer in layers or found["layers"] if isinstance(layer, Mapping)]
    if not any(layer.get("kind") == "scale" for layer in layers):
        del found["training"]["rate_factors"]["scale"]
        found["training"].pop("decay_factors", None)
    if not any(word in (*layer, layer.get("kind")) for layer in layers for word in DRAWN):
        del found["training"]["dropout_schedule"]
    return found


# By name: of the task, and of the training and the layers that a file has itself.
PRESETS: dict[str, Callable[[Task, Mapping[str, Any], Any], dict[str, Any]]] = {"tabular": tabular}
DRAWN = ("dropout", "noise")  # what layers draw
DECIDES = ("model.", "training.loss", "training.epochs", "training.weight_decay")


def check_preset(name: Any) -> None:
    """InputError for a name that is none."""
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(f"model.preset: unknown {shown(name, 60)}{did_you_mean(name, PRESETS)}")


def with_preset(values: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file and, below them, of its preset; they are not changed.

    asked: the values with what the command line says of the preset and of the loss. Raises
    InputError for an unknown preset, and where the loss does not say what is predicted.
    """
    model = asked.get("model")
    name = model.get("preset") if isinstance(model, dict) else None
    if name is None:
        return values
    check_preset(name)
    training = asked.get("training")
    loss = training.get("loss") if isinstance(training, dict) else None
    if loss is None:
        raise InputError(
            f"training.loss: the preset {shown(name)} needs it: 'cross_entropy' for classes, "
            "'mean_squared_error' for numbers"
        )
    kind: Any = getattr(get_loss(loss), "targets", "numbers")
    if kind not in ("classes", "numbers"):
        raise InputError(
            f"training.loss: the preset {shown(name)} is for classes and numbers, and "
            f"{shown(loss)} for {kind}; write the layers yourself"
        )
    return _merged(values, PRESETS[name](kind, training or {}, values.get("layers")))


def _merged(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Sections key by key; of lists and of what has a name the one that is above."""
    found = {**below, **above}
    for name in ("data", "training"):
        if isinstance(above.get(name), dict) and isinstance(below.get(name), dict):
            found[name] = {**below[name], **above[name]}
    return found


def of_preset(overrides: Sequence[str]) -> list[str]:
    """Those of the command line that a preset depends on."""
    return [text for text in overrides if text.strip().startswith(DECIDES)]
