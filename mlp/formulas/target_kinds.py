"""Kinds of targets: what a loss asks of t, and what a metric is for.

A loss names its kind in ``targets``, a metric those it is for. A row of t is a sample, a column one
of c outputs.

    numbers   (n, c) of any size
    counts    (n, c) from 0 on, whole or not
    labels    (n, c) from 0 to 1: each output a yes or no of its own, or how likely it is
    classes   (n,) class numbers from 0 to c - 1, or (n, c) shares from 0 to 1 whose sum is 1

>>> TARGET_KINDS["counts"]
(0.0, inf)
"""

from math import inf
from typing import Literal

TargetKind = Literal["numbers", "counts", "labels", "classes"]

# The least and the largest that a value of (n, c) targets may be.
TARGET_KINDS: dict[TargetKind, tuple[float, float]] = {
    "numbers": (-inf, inf),
    "counts": (0.0, inf),
    "labels": (0.0, 1.0),
    "classes": (0.0, 1.0),
}
