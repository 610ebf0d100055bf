"""How much was erased in how much time: the measure of every forecast."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from lethe_eraser.domain import Job, done_rows


@dataclass(frozen=True, slots=True)
class Measured:
    """Client rows, and the seconds workers spent on their people from start to verification."""

    rows: int
    seconds: float


class Stopwatch:
    """Sums what the workers of this process do until somebody takes the sum.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows = 0
        self._seconds = 0.0

    def lap(self, job: Job) -> "Lap":
        """Begin to measure one worker's time with a job."""
        return Lap(self, self._clock, job)

    def add(self, rows: int, seconds: float) -> None:
        """Add to the sum."""
        self._rows += rows
        self._seconds += seconds

    def take(self) -> Measured:
        """Give the sum and begin anew."""
        taken = Measured(self._rows, self._seconds)
        self._rows, self._seconds = 0, 0.0
        return taken


class Lap:
    """One worker with one job; `at` each batch boundary adds what came since the last one."""

    def __init__(self, stopwatch: Stopwatch, clock: Callable[[], float], job: Job) -> None:
        self._stopwatch = stopwatch
        self._clock = clock
        self._rows = done_rows(job.totals)
        self._since = clock()

    def at(self, job: Job) -> None:
        """Add what was done until now; `job` as it stands now."""
        now, rows = self._clock(), done_rows(job.totals)
        # The rows blocked may become fewer in the end, and were dealt with all the same.
        self._stopwatch.add(max(rows - self._rows, 0), now - self._since)
        self._rows, self._since = rows, now
