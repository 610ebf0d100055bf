"""What came of bringing rows back, and of those that were named and left."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lethe_outbox.operations.requeuing import NotRequeued

_SHOWN: Final = 10


def counted(rows: int) -> str:
    """Say how many rows."""
    return "1 row" if rows == 1 else f"{rows} rows"


@dataclass(slots=True)
class Requeued:
    """What came of it so far in one outbox."""

    rows: int = 0
    """Rows that are pending again, or would be."""
    not_refused: list[int] = field(default_factory=list)
    """Named rows that wait or were sent."""
    not_there: list[int] = field(default_factory=list)
    """Named ids of no row."""

    def left(self, some: NotRequeued) -> None:
        """Add named rows that are left."""
        self.not_refused += some.not_refused
        self.not_there += some.not_there

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        """Describe it for programs."""
        return {
            "would_requeue" if dry_run else "requeued": self.rows,
            "dry_run": dry_run,
            "not_refused": self.not_refused,
            "not_there": self.not_there,
        }

    def told(self, outbox: str, *, dry_run: bool) -> str:
        """Say how many rows came back."""
        are = "would be" if dry_run else "is" if self.rows == 1 else "are"
        return f"{counted(self.rows)} of {outbox} {are} pending again"

    def before(self, *, dry_run: bool) -> str:
        """Say how many rows came back before something was refused."""
        if dry_run or not self.rows:
            return "none came back"
        return f"{counted(self.rows)} before them {'is' if self.rows == 1 else 'are'} pending again"

    @property
    def whats_left(self) -> str:
        """Say which of the named rows are left, why, and where to look; empty if none is."""
        parts = [
            f"{_rows(ids)} {why}"
            for ids, why in (
                (self.not_refused, "not refused, so nothing is to be brought back"),
                (self.not_there, "not there (any more)"),
            )
            if ids
        ]
        return f"{'; '.join(parts)}; see lethe outbox show" if parts else ""


def _rows(ids: Sequence[int]) -> str:
    named = ", ".join(map(str, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
    return f"{len(ids)} of the named rows ({named}) {'is' if len(ids) == 1 else 'are'}"
