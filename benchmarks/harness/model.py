"""What is measured, and what it is held to.

A *case* is run once per repetition and gives a *sample*: named values, and what reading the topic
back said. A *row* of the table takes one value of a case, beside the value of another case of the
same run where there is something to compare with, and a *goal*.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from lethe_sandbox.stack import Addresses

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for.

    Attributes:
        rows: of the relay's backlog.
        repeats: how often every case is run; some cases take fewer.
        seconds: how long a latency case and an append case run.
        scale: size of the heavy person of the erasure.
        full: with what takes longest: the largest backlogs.
        quick: as little as shows that the harness works; its figures mean nothing.
    """

    rows: int = 300_000
    repeats: int = 3
    seconds: float = 15
    scale: float = 1.0
    full: bool = False
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in the topic, against what was written."""

    expected: int
    found: int
    lost: int
    duplicates: int
    inversions: int
    """First appearances of a key's records out of their order."""

    @property
    def clean(self) -> bool:
        """Whether everything is there once and in order."""
        return self.lost == self.duplicates == self.inversions == 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a case gave."""

    values: Mapping[str, float]
    verdict: Verdict | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Written to the file for whoever wants to know more."""


class Kept:
    """What cases of one run share because it takes long to start; ended with the run."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._found: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], AbstractContextManager[T]]) -> T:
        """Give what is kept under `name`, made now if nobody asked before."""
        if name not in self._found:
            self._found[name] = self._stack.enter_context(make())
        found: T = self._found[name]
        return found


@dataclass(frozen=True, slots=True)
class Bench:
    """What a case works with."""

    addresses: Addresses
    options: Options
    say: Callable[[str], None]
    kept: Kept


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is run; cases of one name are one case, whoever asks for it."""

    name: str
    run: Callable[[Bench], Sample]
    at_most: int | None = None
    """Repeat no more often than this."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a value, or its ratio, should come to."""

    on: Literal["ratio", "value"]
    is_at: Literal["least", "most"]
    limit: float
    aim: float | None = None
    """What we would like; reaching the limit is enough."""

    def reached(self, value: float) -> bool:
        """Say whether `value` is good enough."""
        return value >= self.limit if self.is_at == "least" else value <= self.limit


def at_least(
    limit: float, *, aim: float | None = None, on: Literal["ratio", "value"] = "ratio"
) -> Goal:
    """Make a goal that is reached from `limit` upwards."""
    return Goal(on, "least", limit, aim)


def at_most(
    limit: float, *, aim: float | None = None, on: Literal["ratio", "value"] = "value"
) -> Goal:
    """Make a goal that is reached up to `limit`."""
    return Goal(on, "most", limit, aim)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        work: what was done, in words.
        case: whose value it is.
        metric: which of its values.
        unit: of the value.
        against: the case to compare with; None for a value that stands alone.
        base: which of the other case's values; None for the same.
        goal: None for what is reported only.
    """

    work: str
    case: str
    metric: str
    unit: str
    against: str | None = None
    base: str | None = None
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its cases and the lines of the table that come of them."""

    name: str
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]
