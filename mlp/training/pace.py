"""Whether steps have come to take many times as long as the fastest ones of a run.

Products in several threads wait for each other. Where other programs take the cores meanwhile, such
a wait is as long as their turns, and steps take many times what they took before.

>>> pace = Pace()
>>> [pace.step(rows=32, seconds=0.25) for _ in range(8)] == [None] * 8
True
>>> pace.step(rows=32, seconds=25.0)
'steps take 100 times as long as before (0.25 s for 32 rows, now 25 s)'
"""

WINDOW = 1.0  # seconds of steps that are compared together
MANY = 4.0  # times


class Pace:
    """The steps of a run. `step` says once what is the matter, in a sentence."""

    def __init__(self) -> None:
        self.rows, self.seconds, self.said = 0, 0.0, False
        self.best: float | None = None  # seconds a row, in the fastest window

    def step(self, rows: int, seconds: float) -> str | None:
        """One more step on so many rows, which took so long."""
        self.rows, self.seconds = self.rows + rows, self.seconds + seconds
        if self.seconds < WINDOW or self.said:
            return None
        now = self.seconds / self.rows
        self.rows, self.seconds = 0, 0.0
        self.best = min(now, now if self.best is None else self.best)
        if now < MANY * self.best:
            return None
        self.said = True
        return (
            f"steps take {now / self.best:.0f} times as long as before ({self.best * rows:.2g} s "
            f"for {rows} rows, now {now * rows:.2g} s)"
        )
