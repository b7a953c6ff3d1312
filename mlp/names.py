"""Name tables: from what a file or an argument says to the object it means, and back.

An entry of a table is an object or a class. What stands for it elsewhere is its name, or a mapping
with the name and some of its settings: ``{"name": "leaky_relu", "slope": 0.2}``.

An entry with settings is a frozen dataclass. What a setting may be is said there alone: its type by
its field, its range by `check_settings`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from numbers import Integral
from typing import Any, Literal, get_args, get_origin

import numpy as np

from mlp.errors import InputError, did_you_mean, is_finite, shown

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object of the user's own, in its repr
Numbers = float | tuple[float, ...]  # a setting: one number for all, or a list of them


def spelled(value: Any) -> str:
    """The repr, the same in every process.

    >>> spelled(object()), spelled("adam")
    ('<object object>', "'adam'")
    """
    return ADDRESS.sub("", repr(value))


def make(table: Mapping[str, Any], spec: Any, kind: str) -> Any:
    """The object that a name or a mapping stands for; any other object is returned as it is.

    Raises InputError for an unknown name or setting, with the nearest one, and for a setting that
    is missing or cannot be.

    >>> from mlp.formulas.activations import ACTIVATIONS
    >>> make(ACTIVATIONS, {"name": "elu", "alpha": 0.5}, "activation")
    Elu(alpha=0.5)
    >>> make(ACTIVATIONS, "tanhh", "activation")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: unknown activation 'tanhh'; did you mean 'tanh'?
    """
    if isinstance(spec, Mapping):
        settings = dict(spec)
        name = settings.pop("name", None)
        if name is None:
            raise InputError(
                f"{kind} {shown(dict(spec))} lacks its name, as in name = '{next(iter(table))}'"
            )
    elif isinstance(spec, str):
        name, settings = spec, {}
    else:
        return spec
    if not isinstance(name, str) or name not in table:
        raise InputError(f"unknown {kind} {shown(name)}{did_you_mean(name, table)}")
    entry = table[name]
    known = settings_of(entry)
    for key in settings:
        if key not in known:
            hint = did_you_mean(key, known) if known else "; it has none"
            raise InputError(f"{kind} {shown(name)} has no setting {shown(key)}{hint}")
    if not isinstance(entry, type):
        return replace(entry, **settings) if settings else entry
    for field in fields(entry) if known else ():
        given = field.name in settings or field.default is not MISSING
        if not given and field.default_factory is MISSING:
            raise InputError(f"{kind} {shown(name)} needs a value for {shown(field.name)}")
    return entry(**settings)


def settings_of(entry: Any) -> list[str]:
    """Names of the settings an entry has."""
    return [field.name for field in fields(entry) if field.init] if is_dataclass(entry) else []


def spec(table: Mapping[str, Any], thing: Any, kind: str) -> Any:
    """The name or mapping that `make` turns into this object: text and numbers only.

    Raises InputError for an object of the user's own, which no file can hold.

    >>> from mlp.formulas.activations import ACTIVATIONS, LeakyRelu
    >>> spec(ACTIVATIONS, LeakyRelu(0.2), "activation")
    {'name': 'leaky_relu', 'slope': 0.2}
    """
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Mapping):
        made = make(table, thing, kind)  # whose numbers are plain
        return {
            key: value if key == "name" else _listed(getattr(made, key))
            for key, value in thing.items()
        }
    for name, entry in table.items():
        if thing == entry and not isinstance(entry, type):
            return name
    for name, entry in table.items():
        if type(thing) is (entry if isinstance(entry, type) else type(entry)):
            return {"name": name} | {
                key: _listed(getattr(thing, key)) for key in settings_of(thing)
            }
    raise InputError(
        f"{kind} {shown(thing)} is an object of your own and cannot be written to a file (files "
        "hold "
        "data, never code); keep the weights, `model.w`, and build the network in your program"
    )


def _listed(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


# Intervals that are better said in words.
_WORDS = {
    "(-inf, inf)": "be a finite number",
    "(0, inf)": "be above 0",
    "[0, inf)": "be 0 or above",
    "(0, 1)": "lie between 0 and 1",
}


def check_settings(thing: Any, what: str, **ranges: str) -> None:
    """The settings of an entry are of their fields' types and within their ranges, or InputError.

    ranges: intervals as on paper, of the settings that are numbers; "(-inf, inf)" if none is given.
    NumPy's numbers become Python's: in a formula they would bring a dtype of their own.

    >>> from mlp.formulas.activations import Elu
    >>> Elu(np.float32(0.5))
    Elu(alpha=0.5)
    >>> Elu(-1)
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: elu: alpha must be above 0, not -1
    """
    for field in fields(thing):
        value, kind = getattr(thing, field.name), field.type
        plain: Callable[[Any], Any]
        if kind is float:
            within = ranges.get(field.name, "(-inf, inf)")
            fits, must = _is_number(value, within), _WORDS.get(within, f"be in {within}")
            plain = int if isinstance(value, Integral) and abs(int(value)) < 2**53 else float
        elif kind is bool:
            fits, must = isinstance(value, (bool, np.bool_)), "be True or False"
            plain = bool
        elif get_origin(kind) is Literal:
            choices = get_args(kind)
            fits = isinstance(value, str) and value in choices
            must = f"be one of {', '.join(choices)}"
            plain = str
        elif kind == Numbers:
            within = ranges.get(field.name, "(-inf, inf)")
            listed = isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1
            each = value if listed else [value]
            fits = len(each) > 0 and all(_is_number(x, within) for x in each)
            must = f"{_WORDS.get(within, f'be in {within}')}, or a list of such numbers"
            plain = _as_tuple if listed else float
        else:
            continue
        if not fits:
            raise InputError(f"{what}: {field.name} must {must}, not {shown(value)}")
        object.__setattr__(thing, field.name, plain(value))


def _as_tuple(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values))


def _is_number(value: Any, within: str) -> bool:
    """Whether it is a finite number within the interval."""
    if not is_finite(value):
        return False
    low, high = (float(end) for end in within[1:-1].split(","))
    above = value >= low if within[0] == "[" else value > low
    below = value <= high if within[-1] == "]" else value < high
    return bool(above and below)
