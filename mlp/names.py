"""Name tables: from what a file or an argument says to the object it means, and back.

An entry of a table is an object or a class. What stands for it elsewhere is its name, or a mapping
with the name and some of its settings: ``{"name": "leaky_relu", "slope": 0.2}``.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from mlp.errors import InputError, did_you_mean


def make(table: Mapping[str, Any], spec: Any, kind: str) -> Any:
    """The object that a name or a mapping stands for; any other object is returned as it is.

    Raises InputError for an unknown name or setting, with the nearest one.

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
                f"{kind} {dict(spec)!r} lacks its name, as in name = '{next(iter(table))}'"
            )
    elif isinstance(spec, str):
        name, settings = spec, {}
    else:
        return spec
    if name not in table:
        raise InputError(f"unknown {kind} {name!r}{did_you_mean(name, table)}")
    entry = table[name]
    if not isinstance(entry, type) and not settings:
        return entry
    known = settings_of(entry)
    for key in settings:
        if key not in known:
            hint = did_you_mean(key, known) if known else "; it has none"
            raise InputError(f"{kind} {name!r} has no setting {key!r}{hint}")
    cls = entry if isinstance(entry, type) else type(entry)
    start = {} if isinstance(entry, type) else {key: getattr(entry, key) for key in known}
    try:
        return cls(**(start | settings))
    except TypeError as error:
        raise InputError(f"{kind} {name!r}: {error}") from error


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
        return dict(thing)
    for name, entry in table.items():
        if thing == entry and not isinstance(entry, type):
            return name
    for name, entry in table.items():
        if type(thing) is (entry if isinstance(entry, type) else type(entry)):
            return {"name": name} | {key: getattr(thing, key) for key in settings_of(thing)}
    raise InputError(
        f"{kind} {thing!r} is an object of your own and cannot be written to a file (files hold "
        "data, never code); keep the weights, `model.w`, and build the network in your program"
    )
