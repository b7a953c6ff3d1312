"""Durations as people write them."""

import re

from mlp.errors import InputError, is_finite, shown

SECONDS = {"s": 1, "min": 60, "h": 3600}


def seconds_of(duration: object) -> float:
    """Seconds of a number of them, or of "90 s", "10 min", "1.5 h"; InputError for another thing.

    >>> seconds_of("10 min"), seconds_of(2.5)
    (600.0, 2.5)
    """
    if isinstance(duration, str):
        parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h)", duration)
        found = float(parts[1]) * SECONDS[parts[2]] if parts else 0.0
    else:
        found = float(duration) if is_finite(duration) else 0.0  # type: ignore[arg-type]
    if not 0.0 < found < 1e12:
        raise InputError(
            f"time is '90 s', '10 min', '1.5 h' or seconds above 0, not {shown(duration)}"
        )
    return found
