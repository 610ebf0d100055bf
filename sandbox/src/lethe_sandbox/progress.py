"""What the demo shows while it works: on a terminal a live table, elsewhere a line now and then."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.status import Status
from rich.table import Table
from rich.text import Text

_RATE_SECONDS: Final = 5.0
_LINE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Done:
    """How far the erasure is; every number only grows."""

    rows: Mapping[str, int] = field(default_factory=dict)
    """Masked rows per request type."""
    objects: int = 0
    """Deleted objects."""
    persons: int = 0
    """Persons whose erasure ended as expected."""

    @property
    def total(self) -> int:
        """Masked rows of all types."""
        return sum(self.rows.values())


class Pace:
    """Rows per second over the last few seconds, and the time left by what was done so far.

    A person costs time beside the rows they have, so the time left goes by both: it is extrapolated
    from the mean of the shares that are done, since the beginning.
    """

    def __init__(self, rows: int, objects: int, persons: int) -> None:
        self._expected = Done({"": rows}, objects, persons)
        self._seen: deque[tuple[float, int]] = deque()
        self._began: float | None = None
        self._share = 0.0

    def note(self, done: Done, now: float) -> None:
        """Note what is done at `now` (seconds of any clock)."""
        self._began = now if self._began is None else self._began
        self._seen.append((now, done.total))
        while now - self._seen[0][0] > _RATE_SECONDS and len(self._seen) > 2:  # noqa: PLR2004 - a rate needs two points
            self._seen.popleft()
        shares = (
            done.total / max(1, self._expected.total),
            done.objects / max(1, self._expected.objects),
            done.persons / max(1, self._expected.persons),
        )
        self._share = sum(min(1.0, share) for share in shares) / len(shares)

    @property
    def per_second(self) -> float:
        """Rows per second, 0 while nothing can be said."""
        if not self._seen:
            return 0.0
        (began, few), (ended, many) = self._seen[0], self._seen[-1]
        return (many - few) / (ended - began) if ended > began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until everything is done, None while nothing can be said."""
        if self._began is None or not self._share:
            return None
        return (self._seen[-1][0] - self._began) * (1 - self._share) / self._share


class Screen(Protocol):
    """Where the demo says what it does."""

    def step(self, text: str) -> None:
        """Say that something began or was done."""
        ...

    def note(self, text: str) -> None:
        """Say how far the present step is; the next note or step replaces it."""
        ...

    def expect(self, rows: Mapping[str, int], objects: int, persons: int) -> None:
        """Say how much there is to do; progress is shown from now on."""
        ...

    def progress(self, done: Done) -> None:
        """Say how far it is."""
        ...

    def finish(self) -> None:
        """End the progress; what it showed last stays."""
        ...

    def show(self, result: RenderableType) -> None:
        """Show a table or text."""
        ...


class ConsoleScreen:
    """A `Screen` on a rich console, live if it is a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._live: Live | None = None
        self._status: Status | None = None
        self._expected: Mapping[str, int] = {}
        self._objects = 0
        self._persons = 0
        self._pace = Pace(0, 0, 0)
        self._last_line = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was, whatever happened."""
        self.finish()

    def step(self, text: str) -> None:
        """Print a line with the seconds since the beginning."""
        self._end_note()
        seconds = f"{time.monotonic() - self._began:5.1f} s"
        self._console.print(Text.assemble((seconds, "dim"), "  ", text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Show it beside a spinner, or print it if the last such line is old enough."""
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif self._line_is_due():
            self.step(text)

    def expect(self, rows: Mapping[str, int], objects: int, persons: int) -> None:
        """Begin the live table."""
        self._expected = dict(rows)
        self._objects = objects
        self._persons = persons
        self._pace = Pace(sum(rows.values()), objects, persons)
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self.progress(Done())

    def progress(self, done: Done) -> None:
        """Refresh the live table, or print a line if the last one is old enough."""
        now = time.monotonic()
        self._pace.note(done, now)
        if self._live:
            self._live.update(self._table(done), refresh=True)
        elif self._line_is_due():
            self.step(self._line(done))

    def finish(self) -> None:
        """End the live table."""
        self._end_note()
        if self._live:
            self._live.stop()
            self._live = None

    def show(self, result: RenderableType) -> None:
        """Print it."""
        self._console.print(result)

    def _end_note(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_line < _LINE_SECONDS:
            return False
        self._last_line = now
        return True

    def _line(self, done: Done) -> str:
        left = self._pace.seconds_left
        parts = [
            f"rows {done.total}/{sum(self._expected.values())}",
            # More are gone than there were: a manifest also names files that were never stored.
            f"objects {min(done.objects, self._objects)}/{self._objects}",
            f"persons {done.persons}/{self._persons}",
            f"{self._pace.per_second:.0f} rows/s",
        ]
        return ", ".join(parts if left is None else [*parts, f"about {left:.0f} s left"])

    def _table(self, done: Done) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        table.add_column("type")
        table.add_column("", width=30)
        table.add_column("rows erased", justify="right")
        rows = Counter(done.rows)
        for name, expected in self._expected.items():
            # A row that was counted twice across a restart must not overfill the bar.
            shown = min(rows[name], expected)
            table.add_row(name, ProgressBar(max(expected, 1), shown), f"{shown}/{expected}")
        return Group(table, Text(self._line(done), style="bold"))
