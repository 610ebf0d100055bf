"""A lane: the buckets that one pipeline publishes, and how far each of them was read."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple

from lethe_outbox.errors import LeaseError
from lethe_outbox.relay.horizon import Look
from lethe_outbox.relay.pacing import rows_at

_FIRST_LIMIT: Final = 4
_MOST_ALONE: Final = 4
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_id: Final = itemgetter(0)
_bucket: Final = itemgetter(1)
_payload: Final = itemgetter(5)
_headers: Final = itemgetter(6)


Fetched = tuple[int, int, int, bytes, bytes, bytes, bytes]
"""One pending row as the driver gives it: the fields of `Row`, without the cost of a class.

The payload is None where it or the headers are large, and so are headers that are, until the row is
loaded, just before it is published.
"""


HEADERS_AT: Final = 6


class Row(NamedTuple):
    """One pending row, where names matter more than time."""

    id: int
    bucket: int
    part: int
    topic: bytes
    key: bytes
    payload: bytes
    headers: bytes


def lease_time() -> float:
    """Give the seconds of a clock that only goes on: on Linux while the machine is suspended, too.

    A lease ends meanwhile, on the database's clock.
    """
    return time.clock_gettime(_CLOCK)


class LaneLostError(LeaseError):
    """The lane belongs to another relay by now."""

    def __init__(self, lane: "Lane") -> None:
        super().__init__(f"lane {lane.number} is lost")
        self.lane = lane


@dataclass(frozen=True, slots=True)
class Lease:
    """One bucket as it was claimed or renewed."""

    bucket: int
    epoch: int
    low_water: int
    rewinds: int


@dataclass(slots=True)
class Bucket:
    """How far one bucket was read: nothing unread is visible at or below `cursor`.

    Below `low_water` every row is resolved. `rewinds` must equal the database's, else a fetch finds
    nothing.
    """

    cursor: int
    low_water: int
    rewinds: int


@dataclass(eq=False)
class Lane:
    """The state of one lane; every change is made between two awaits.

    Attributes:
        number: which lane.
        epoch: of the claim; an acknowledgement under another one is refused.
        deadline: `lease_time` until which the lease surely holds.
        buckets: by number.
        chunks: fetched rows that wait to be published, in order.
        taken: ids that were fetched and are not yet known to be acknowledged.
        acknowledged: ids to forget when the next fetch begins: it sees them as sent.
        look: what the last fetch was based on.
        generation: grows with every reset; a fetch from before it is thrown away.
        held: by bucket, the lowest id of a dead row that holds its key back. What waits behind it
            is below the cursor, so the low-water mark stays below it.
        holds: grows with every hold; what the database said of `held` before it is out of date.
        limit: rows a fetch takes of a bucket that is not ahead.
        leaving: nothing more is fetched, and an empty chunk ends the publisher.
        sizes: bytes of the chunk being published and of those that wait.
        compared: the sum of all buckets' rewinds when this lane's were last held against the
            database's; None at first, because one may have come since the claim read them.
        apart: a partition takes nothing, so what waits here takes no room of other lanes.
    """

    number: int
    epoch: int
    deadline: float
    buckets: dict[int, Bucket]
    chunks: asyncio.Queue[list[Fetched]]
    taken: set[int] = field(default_factory=set)
    acknowledged: list[int] = field(default_factory=list)
    look: Look = field(default_factory=Look)
    generation: int = 0
    held: dict[int, int] = field(default_factory=dict)
    holds: int = 0
    limit: int = _FIRST_LIMIT
    leaving: bool = False
    sizes: deque[int] = field(default_factory=deque)
    compared: int | None = None
    apart: bool = False
    renewed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def claimed(
        cls, number: int, leases: Sequence[Lease], deadline: float, chunks_ahead: int
    ) -> "Lane":
        """Begin where the previous owner's low-water marks are."""
        buckets = {one.bucket: Bucket(one.low_water, one.low_water, one.rewinds) for one in leases}
        return cls(number, leases[0].epoch, deadline, buckets, asyncio.Queue(chunks_ahead))

    def begin_fetch(self, look: Look) -> None:
        """Go back to where writers that ended since the last fetch may have left rows."""
        self.forget_acknowledged()
        self.go_back(self.look.ended(look))

    def forget_acknowledged(self) -> None:
        """Forget what is marked; no fetch may be on its way that could still see it as pending."""
        self.taken.difference_update(self.acknowledged)
        self.acknowledged.clear()

    def settled(self, look: Look) -> bool:
        """Say that a fetch after `look` would find nothing: no id was drawn, no writer ended."""
        return look.last_id <= min(self.cursors) and self.look.ended(look) is None

    @property
    def left(self) -> float:
        """For how many seconds the lease surely holds."""
        return self.deadline - lease_time()

    @property
    def cursors(self) -> list[int]:
        """How far each bucket was read."""
        return [bucket.cursor for bucket in self.buckets.values()]

    @property
    def unacknowledged(self) -> int:
        """How many rows were fetched and are not marked."""
        return len(self.taken) - len(self.acknowledged)

    def offer(self, rows: list[Fetched]) -> None:
        """Put a chunk in line to be published."""
        self.sizes.append(_size(rows))
        self.chunks.put_nowait(rows)

    def watched(self, look: Look) -> set[str]:
        """Give the writers that must stay open during a fetch, else it may have missed a row."""
        furthest = max(self.cursors)
        return {
            writer
            for writer, floor in self.look.floors.items()
            if writer in look.floors and floor < furthest
        }

    def go_back(self, floor: int | None) -> None:
        """Read again from `floor`, never from below a low-water mark."""
        if floor is None:
            return
        for bucket in self.buckets.values():
            bucket.cursor = min(bucket.cursor, max(floor, bucket.low_water))

    def limits(self, front: int, most: int) -> dict[int, int]:
        """Give how many rows a fetch takes of each bucket, at most `most`; see `pacing`."""
        limit = min(self.limit, most)
        return {
            number: rows_at(bucket.cursor, front, limit) for number, bucket in self.buckets.items()
        }

    def ends(self, most: int) -> dict[int, int]:
        """Give the last id that a fetch looks at of each bucket: it passes at most `most` ids."""
        return {number: bucket.cursor + most for number, bucket in self.buckets.items()}

    def accept(
        self,
        rows: Sequence[Fetched],
        limits: Mapping[int, int],
        ends: Mapping[int, int],
        look: Look,
    ) -> list[Fetched]:
        """Take in a fetch that began after `look`; gives the rows not yet taken, by id.

        Args:
            rows: everything the fetch found in this lane, ascending within each bucket.
            limits: how many rows of each bucket it could give at most.
            ends: the last id of each bucket that it looked at.
            look: as passed to `begin_fetch`.
        """
        ids = list(map(_id, rows))
        numbers = list(map(_bucket, rows))
        counts = Counter(numbers)
        # Of several rows of a bucket the last one stays.
        last = dict(zip(numbers, ids, strict=True))
        for number, bucket in self.buckets.items():
            reached = min(look.last_id, ends[number])
            if counts[number] >= limits[number]:
                reached = min(last[number], reached)
            bucket.cursor = max(bucket.cursor, reached)
        self.look = look
        taken = self.taken
        fresh = list(rows)
        if not taken.isdisjoint(ids):
            fresh = [row for row in rows if row[0] not in taken]
        taken.update(ids)
        fresh.sort(key=_id)
        return fresh

    def learn_size(self, rows: Sequence[Fetched], chunk_bytes: int, most: int) -> None:
        """Choose the next limit so that a chunk stays about `chunk_bytes`."""
        if not rows:
            return
        # A key that is alone has the room of the others.
        alone = len(self.buckets) // len(set(map(_bucket, rows)))
        most *= max(1, min(_MOST_ALONE, alone))
        mean = _size(rows) / len(rows) + 1
        fitting = int(chunk_bytes / mean / len(self.buckets))
        self.limit = max(1, min(most, fitting, self.limit * 2))

    def leave(self, unacknowledged: Iterable[int]) -> None:
        """Let the publisher end after what it has in hand; the argument is that of `reset`."""
        self.leaving = True
        self.reset(unacknowledged)

    def reset(self, unacknowledged: Iterable[int]) -> None:
        """Forget what was fetched and not handed over, and read it again, unless it is left.

        Args:
            unacknowledged: ids that were delivered and are on their way to be acknowledged.
        """
        self.generation += 1
        while not self.chunks.empty():
            if self.chunks.get_nowait():
                self.sizes.pop()
        if self.leaving:
            # The one there was may be among those taken out, or taken by the publisher already.
            self.chunks.put_nowait([])
        self.taken = {*unacknowledged, *self.acknowledged}
        for bucket in self.buckets.values():
            bucket.cursor = bucket.low_water

    def rewound(self, number: int, low_water: int, rewinds: int) -> None:
        """Take over a low-water mark that somebody else lowered; a reset must follow."""
        bucket = self.buckets[number]
        bucket.low_water = min(bucket.low_water, low_water)
        bucket.rewinds = rewinds

    def raise_low_waters(self) -> None:
        """Raise each bucket's low-water mark to what is surely resolved now."""
        floor = self.look.lowest_floor
        ceilings = [min(self.taken) - 1] if self.taken else []
        if floor is not None:
            ceilings.append(floor)
        for number, bucket in self.buckets.items():
            mark = min([bucket.cursor, *ceilings])
            if number in self.held:
                mark = min(mark, self.held[number] - 1)
            bucket.low_water = max(bucket.low_water, mark)

    def hold(self, row: Row) -> None:
        """Note that `row` died and holds its key back; a reset must follow."""
        self.holds += 1
        self.held[row.bucket] = min(row.id, self.held.get(row.bucket, row.id))


def _size(rows: Sequence[Fetched]) -> int:
    payloads = sum(map(len, filter(None, map(_payload, rows))))
    return payloads + sum(map(len, filter(None, map(_headers, rows))))
