"""The one error for a user's mistake, and the nearest valid name to put into it."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral

from mlp.spellings import NEAR, fold, ours


class Note(UserWarning):
    """What was understood of a user's data and is worth a look; not a mistake."""


class InputError(ValueError):
    """A setting, file or array that cannot be used; the message names value, place and cure."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: what is meant by it elsewhere
    (`mlp.spellings`), else the one that is written most alike.

    >>> did_you_mean("tanhh", ["relu", "tanh"])
    "; did you mean 'tanh'?"
    >>> did_you_mean("nn.Tanh", ["relu", "tanh"])
    "; did you mean 'tanh'?"
    >>> did_you_mean("hardtanh", ["relu", "tanh"])
    "; there is none here, the nearest is 'tanh'"
    >>> did_you_mean("quartz", ["relu", "tanh"])
    '; known: relu, tanh'
    """
    known = list(known)
    if same := ours(name, known):
        return f"; did you mean '{same}'?"
    if near := ours(name, known, NEAR):
        return f"; there is none here, the nearest is '{near}'"
    by_letters = {fold(own): own for own in known}
    alike = get_close_matches(fold(name), by_letters, n=1) if fold(name) else []
    return f"; did you mean '{by_letters[alike[0]]}'?" if alike else f"; known: {', '.join(known)}"


def check_whole(name: str, value: object, least: int) -> None:
    """InputError if the value is not a whole number from ``least`` on.

    >>> check_whole("batch_size", 0, 1)
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: batch_size must be a whole number from 1 on, not 0
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InputError(f"{name} must be a whole number from {least} on, not {value!r}")
