"""The one error for a user's mistake, and the nearest valid name to put into it."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A setting, file or array that cannot be used; the message names value, place and cure."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name.

    >>> did_you_mean("tanhh", ["relu", "tanh"])
    "; did you mean 'tanh'?"
    >>> did_you_mean("quartz", ["relu", "tanh"])
    '; known: relu, tanh'
    """
    known = list(known)
    near = get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
