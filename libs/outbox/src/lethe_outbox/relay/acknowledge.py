"""From delivered to sent: one acknowledger per relay, in batches as large as they happen to be.

A row is marked by its id, never by a range, because a row that commits late may lie inside one.
What could not be marked, because the database went away, is kept for the next session, and dropped
if the lane was lost meanwhile or the database is another one: then it is published once more.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.lane import Fetched, Lane, LaneLostError
from lethe_outbox.relay.session import Identity
from lethe_outbox.relay.storage import Fence, RelayStorage

_ENOUGH: Final = 500
_id: Final = itemgetter(0)
_part: Final = itemgetter(2)
_log = logging.getLogger(__name__)


class Acknowledger:
    """Collects what was delivered and marks it as sent."""

    def __init__(self, outbox: str, metrics: RelayMetrics, most: int, room: asyncio.Event) -> None:
        self._waiting: dict[tuple[Lane, int], list[int]] = {}
        self._marking: dict[tuple[Lane, int], list[int]] = {}
        self._most = most
        self._identity: Identity | None = None
        self._acknowledged: Final = metrics.acknowledged.labels(outbox)
        self._flushing = asyncio.Lock()
        self._took: Final = metrics.seconds.labels(outbox, "acknowledge")
        self._room = room
        self._last = (0, 0)
        self.something = asyncio.Event()

    def begin(self, identity: Identity) -> None:
        """Start on a database session; ids of another history are forgotten."""
        for key, ids in self._marking.items():
            self._waiting.setdefault(key, []).extend(ids)
        self._marking = {}
        if self._identity not in (None, identity):
            _log.warning("the database is another one than before; unmarked rows are sent again")
            self._waiting.clear()
        self._identity = identity

    @property
    def history(self) -> Identity | None:
        """Which history of the database is marked now: ids of another one are not its ids."""
        return self._identity

    def delivered(self, lane: Lane, rows: Sequence[Fetched]) -> None:
        """Take rows that the broker has."""
        parts = set(map(_part, rows))
        for part in parts:
            of_part = rows if len(parts) == 1 else [row for row in rows if row[2] == part]
            self._waiting.setdefault((lane, part), []).extend(map(_id, of_part))
        self.something.set()

    def ids_of(self, lane: Lane) -> set[int]:
        """Give what was delivered of a lane and is not yet known to be marked."""
        found: set[int] = set()
        for store in (self._waiting, self._marking):
            for (owner, _), ids in store.items():
                if owner is lane:
                    found.update(ids)
        return found

    def forget(self, lane: Lane) -> None:
        """Drop everything of a lane that was lost."""
        for key in [key for key in self._waiting if key[0] is lane]:
            del self._waiting[key]

    def empty(self, lane: Lane | None = None) -> bool:
        """Say whether nothing (of the lane) waits to be marked."""
        keys = itertools.chain(self._waiting, self._marking)
        return not any(lane is None or owner is lane for owner, _ in keys)

    async def run(self, storage: RelayStorage, on_lost: Callable[[Lane], None]) -> None:
        """Mark what is delivered, for ever.

        Raises:
            psycopg.Error: the database went away; nothing is forgotten.
        """
        while True:
            await self.something.wait()
            self.something.clear()
            await self.flush(storage, on_lost)

    async def flush(self, storage: RelayStorage, on_lost: Callable[[Lane], None]) -> None:
        """Mark everything that was delivered until now; raises as `run`.

        Args:
            storage: of the session.
            on_lost: told a lane that belongs to another relay; what was delivered of it is
                forgotten.
        """
        async with self._flushing:
            while self._waiting:
                try:
                    await self._flush_one(storage)
                except LaneLostError as lost:
                    self.forget(lost.lane)
                    on_lost(lost.lane)

    async def _flush_one(self, storage: RelayStorage) -> None:
        part = next(iter(self._waiting))[1]
        self._take(part)
        ids = sorted(itertools.chain.from_iterable(self._marking.values()))
        lanes = {lane for lane, _ in self._marking}
        began = time.monotonic()
        marked = await storage.acknowledge(part, ids, _fence(storage, lanes))
        self._took.observe(time.monotonic() - began)
        lost, again = None, False
        if marked < len(ids):
            lost = await self._first_lost(storage, lanes)
            # A lease that had ended may be renewed by now, and then nothing was marked.
            again = lost is None and await storage.any_pending(part, ids)
        marking, self._marking = self._marking, {}
        if lost is not None or again:
            for key, kept in marking.items():
                self._waiting.setdefault(key, []).extend(kept)
        if lost is not None:
            raise LaneLostError(lost)
        if again:
            return
        self._acknowledged.inc(marked)
        for (lane, _), done in marking.items():
            lane.acknowledged.extend(done)
        self._room.set()

    def _take(self, part: int) -> None:
        """Choose what one statement marks: few rows of a page, and others than the last one did.

        A row's new version stays on its page only while there is room, and what a statement leaves
        behind is not cleared away by the very next one: a fetch may still see it.
        """
        taken = 0
        keys = [key for key in self._waiting if key[1] == part]
        keys.sort(key=self._overlaps)
        for key in keys:
            ids = self._waiting.pop(key)
            if len(ids) > self._most:
                self._waiting[key] = ids[self._most :]
            self._marking[key] = ids[: self._most]
            taken += len(self._marking[key])
            if taken >= _ENOUGH:
                break
        first = min(ids[0] for ids in self._marking.values())
        self._last = (first, max(ids[-1] for ids in self._marking.values()))

    def _overlaps(self, key: tuple[Lane, int]) -> bool:
        ids = self._waiting[key]
        return ids[0] <= self._last[1] and self._last[0] <= ids[min(len(ids), self._most) - 1]

    async def _first_lost(self, storage: RelayStorage, lanes: set[Lane]) -> Lane | None:
        for lane in lanes:
            if not await storage.owned(_fence(storage, {lane})):
                return lane
        return None


def _fence(storage: RelayStorage, lanes: Iterable[Lane]) -> Fence:
    return Fence(storage.owner, {lane.number: lane.epoch for lane in lanes})
