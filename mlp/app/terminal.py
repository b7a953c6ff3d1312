"""Text on its way to a terminal: names and labels come from files, and may hold control codes."""

import re
from contextlib import nullcontext, suppress

import typer


def printable(text: str) -> str:
    """The text with control codes and other characters that have no shape as escapes.

    What a terminal would obey, as a name of a column that moves the cursor, changes colours or
    turns the direction of writing, is seen instead.

    >>> print(printable("age\\x1b[31m"))
    age\\x1b[31m
    """
    return re.sub(r"[^ -~]", _escaped, text)


def say(text: str, err: bool = False, nl: bool = True) -> None:
    """Print lines that may hold names from files; all that the commands say goes through here."""
    # Nobody can be told of a lost terminal.
    with suppress(OSError, ValueError) if err else nullcontext():
        typer.echo("\n".join(map(printable, text.split("\n"))), err=err, nl=nl)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
