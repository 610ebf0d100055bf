"""When the open work will be done: who is finished when, at a measured rate, in the window's hours.

The order is the executor's: first turns before second ones, the earliest deadline first among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heapreplace
from math import inf
from typing import Final, Protocol

from lethe_eraser.domain.jobs import Totals

MOST_WINDOWS: Final = 100
"""Windows looked ahead; what needs more is past every deadline there is."""

_FARTHEST: Final = timedelta(days=3650)


class Hours(Protocol):
    """When erasing is allowed."""

    def next_open(self, at: datetime) -> datetime:
        """The first instant not before `at` at which it is."""
        ...

    def closes(self, at: datetime) -> datetime | None:
        """The first instant not before `at` at which it is not; None if it always is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one job still has to do."""

    deadline: datetime
    rows: int
    """Client rows that are left."""
    first_turn: int
    """How many of them it may do before it lets those go first that had no turn."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """When everything is done, if nothing comes in between."""

    finishes: tuple[datetime, ...]
    """By job, in the order they were given."""
    windows: int
    """Erasure windows until the last of them, the one that is open included."""
    slack_seconds: float
    """Between the finish of the tightest job and its deadline; +inf without any job."""


def done_rows(totals: Totals) -> int:
    """How many of a job's client rows were dealt with, by what it says of itself."""
    return sum(one.feature_rows + one.rows_blocked for one in totals.values())


def forecast(
    work: Sequence[Work], rate: float | None, *, workers: int, hours: Hours, now: datetime
) -> Forecast | None:
    """Tell when each job is finished; None if that cannot be known.

    Args:
        work: open jobs, those of one deadline in the order of their age.
        rate: client rows a second that one worker does; None if that was never measured.
        workers: jobs at once.
        hours: when they work.
        now: the time.
    """
    if rate is None and any(one.rows for one in work):
        return None
    ends = _ends(work, rate or 1.0, workers)
    moments = _moments(sorted(set(ends)), hours, now)
    finishes = tuple(moments[end][0] for end in ends)
    slack = ((one.deadline - at).total_seconds() for one, at in zip(work, finishes, strict=True))
    return Forecast(
        finishes=finishes,
        windows=max((windows for _, windows in moments.values()), default=0),
        slack_seconds=min(slack, default=inf),
    )


def _ends(work: Sequence[Work], rate: float, workers: int) -> list[float]:
    """Seconds of open window after which each job is finished."""
    free = [0.0] * workers
    heapify(free)
    ends = [0.0] * len(work)
    order = sorted(range(len(work)), key=lambda index: work[index].deadline)
    for turn in (_first, _rest):
        for index in order:
            if rows := turn(work[index]):
                # Nobody works on one person twice at once.
                ends[index] = max(free[0], ends[index]) + rows / rate
                heapreplace(free, ends[index])
    return ends


def _first(one: Work) -> int:
    return min(one.rows, one.first_turn)


def _rest(one: Work) -> int:
    return max(one.rows - one.first_turn, 0)


def _moments(
    ends: Sequence[float], hours: Hours, now: datetime
) -> dict[float, tuple[datetime, int]]:
    """Lay seconds of open window, in their order, over the windows to come."""
    found: dict[float, tuple[datetime, int]] = {}
    number, before = 1, 0.0
    opens = hours.next_open(now)
    closes = hours.closes(opens)
    for end in ends:
        while (
            closes is not None
            and number < MOST_WINDOWS
            and end > before + (closes - opens).total_seconds()
        ):
            number, before = number + 1, before + (closes - opens).total_seconds()
            opens = hours.next_open(closes)
            closes = hours.closes(opens)
        rest = min(end - before, _FARTHEST.total_seconds())
        found[end] = (opens + timedelta(seconds=rest), number)
    return found
