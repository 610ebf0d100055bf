"""How far the outbox can be read without skipping a row that commits late.

Ids are drawn before their transaction commits, so a row can appear below one that was read before.
A *look* is: the last id drawn, and then who holds RowExclusiveLock on the outbox. That lock is
taken before a transaction draws its first id and kept until it ends, therefore:

- a row that is not visible after a look and has an id up to its `last_id` belongs to one of the
  look's writers, and to nobody else;
- a writer seen first in one look has drawn only ids above the `last_id` of the look before: its
  *floor*.

So a position may pass to a look's `last_id` as long as it goes back to the floor of every one of
that look's writers once they have ended, before anything is read above. A writer that stays open
for minutes costs nothing but one more look per fetch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw: the last id drawn before it, and the floor of each open writer."""

    last_id: int = 0
    floors: Mapping[str, int] = field(default_factory=dict)

    def ended(self, later: "Look") -> int | None:
        """Give the lowest floor of the writers that have ended by `later`, if any has."""
        floors = [floor for writer, floor in self.floors.items() if writer not in later.floors]
        return min(floors, default=None)

    @property
    def lowest_floor(self) -> int | None:
        """The id above which all rows of open writers are; None if nobody writes."""
        return min(self.floors.values(), default=None)


class Horizon:
    """Turns what the database says into looks; one per database session.

    Writers of the first look have the floor 0: when they began is not known.
    """

    def __init__(self) -> None:
        self._last = Look()

    @property
    def last(self) -> Look:
        """The newest look."""
        return self._last

    def observe(self, last_id: int, writers: Iterable[str]) -> Look:
        """Take in a look: `last_id` must have been read before `writers`."""
        before = self._last
        floors = {writer: before.floors.get(writer, before.last_id) for writer in writers}
        self._last = Look(max(last_id, before.last_id), floors)
        return self._last
