"""The one error for a user's mistake, and the nearest valid name to put into it."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from inspect import signature
from numbers import Integral, Real
from typing import Any

from mlp.spellings import NEAR, fold, ours


class Note(UserWarning):
    """What was understood of a user's data and is worth a look; not a mistake."""


class InputError(ValueError):
    """A setting, file or array that cannot be used; the message names value, place and cure."""


def shown(value: object, most: int = 300) -> str:
    """A value in a message: its repr, as far as so many letters go. Never an error: Python writes
    no integer of more than 4,300 digits, and an object of the user's may fail in its own repr.

    >>> shown(0.5), shown("a" * 100, 9), shown(10**5000), shown([10**5000])
    ('0.5', "'aaaaa...", 'an integer of 16610 bits', 'a list that cannot be written')
    """
    try:
        text = repr(value)
    except Exception:
        if isinstance(value, int):
            return f"an integer of {value.bit_length()} bits"
        return f"a {type(value).__name__} that cannot be written"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: what is meant by it elsewhere
    (`mlp.spellings`), else the one that is written most alike.

    >>> did_you_mean("tanhh", ["relu", "tanh"])
    "; did you mean 'tanh'?"
    >>> did_you_mean("nn.Tanh", ["relu", "tanh"])
    "; did you mean 'tanh'?"
    >>> did_you_mean("tanhshrink", ["relu", "tanh"])
    "; there is none here, the nearest is 'tanh'"
    >>> did_you_mean("quartz", ["relu", "tanh"])
    '; known: relu, tanh'
    """
    known, name = list(known), name if isinstance(name, str) else shown(name)
    if same := ours(name, known):
        return f"; did you mean '{same}'?"
    if near := ours(name, known, NEAR):
        return f"; there is none here, the nearest is '{near}'"
    by_letters = {fold(own): own for own in known}
    alike = get_close_matches(fold(name), by_letters, n=1) if fold(name) else []
    return f"; did you mean '{by_letters[alike[0]]}'?" if alike else f"; known: {', '.join(known)}"


def check_whole(name: str, value: object, least: int) -> None:
    """InputError if the value is not a whole number from ``least`` on, below 2^63.

    >>> check_whole("batch_size", 0, 1)
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: batch_size must be a whole number from 1 on, not 0
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InputError(f"{name} must be a whole number from {least} on, not {shown(value)}")
    if int(value) >= 2**63:
        raise InputError(f"{name} must be below 2^63, not of {int(value).bit_length()} bits")


def is_finite(value: object) -> bool:
    """Whether it is one finite number that float64 can hold, and no truth value.

    >>> is_finite(0.5), is_finite(10**400), is_finite(True)
    (True, False, False)
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_is(name: str, value: object, kind: type) -> None:
    """InputError if the value is not of a class.

    >>> check_is("save_model: model", 3, dict)
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: save_model: model must be a dict, not 3
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}, not {shown(value, 60)}")


def check_one_of(name: str, value: object, known: Iterable[str]) -> None:
    """InputError for a value that is none of the known texts.

    >>> check_one_of("gaps", "eror", ["fill", "error"])
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: gaps: unknown 'eror'; did you mean 'error'?
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}: unknown {shown(value)}{did_you_mean(value, known)}")


def check_switch(name: str, value: object) -> None:
    """InputError for what is neither on nor off: True, False, or NumPy's.

    >>> check_switch("header", "no")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: header must be True or False, not 'no'
    """
    if type(value).__name__ not in ("bool", "bool_"):
        raise InputError(f"{name} must be True or False, not {shown(value, 60)}")


def check_names(name: str, value: object) -> tuple[str, ...]:
    """Several texts, or one, as a tuple; none for None. InputError for what is neither.

    >>> check_names("target", "kind"), check_names("target", None)
    (('kind',), ())
    >>> check_names("target", 3)
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: target is a name or a list of names, not 3
    """
    if value is None or isinstance(value, str):
        return () if not value else (value,)
    try:
        texts: list[Any] = list(value)  # type: ignore[call-overload]
    except TypeError:  # nothing to go through
        texts = [None]
    if isinstance(value, bytes) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} is a name or a list of names, not {shown(value, 60)}")
    return tuple(texts)


def check_takes(name: str, function: object, *arguments: str) -> None:
    """InputError if a function of the user's cannot be called with these arguments.

    >>> check_takes("a rate", lambda step: 1.0, "step", "n")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: a rate is called with (step, n): too many positional arguments
    """
    if not callable(function):
        raise InputError(f"{name} must be a function, not {shown(function, 60)}")
    try:
        signature(function).bind(*arguments)
    except TypeError as error:
        raise InputError(f"{name} is called with ({', '.join(arguments)}): {error}") from error
    except ValueError:  # it is not written in Python and does not say what it takes
        return
