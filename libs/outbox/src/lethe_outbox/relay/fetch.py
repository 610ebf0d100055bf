"""Reading pending rows: small queries per lane under a backlog, one for all lanes when idle."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Summary

from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.horizon import Look
from lethe_outbox.relay.lane import Fetched, Lane
from lethe_outbox.relay.lease_storage import LeaseStorage
from lethe_outbox.relay.looks import Looks
from lethe_outbox.relay.pacing import front_of
from lethe_outbox.relay.settings import RelaySettings
from lethe_outbox.relay.storage import RelayStorage

_BACKLOG_ROWS: Final = 500
_NAP_BELOW_ROWS: Final = 200
_ROWS_WHEN_IDLE: Final = 16
"""Of a bucket, in the one fetch for all lanes: what comes at once is bounded by all of them."""
_GAP_FETCHES: Final = 20
"""A gap in the ids is passed in steps of so many fetches, where a writer may have filled it."""
_SWEPT_AT_ONCE: Final = 12_500
"""Ids that one statement of a sweep looks at, and so the most rows, be they all of one key. While
it runs, no look gets through, and what died since it began is not cleared away, so that an
acknowledgement finds no room on its page."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read: the rows, and by bucket how many there could be and the last id looked at."""

    rows: Sequence[Fetched]
    limits: Mapping[int, int]
    ends: Mapping[int, int]


class Fetcher:
    """Fills the lanes with chunks, skipping nothing that commits late (see `horizon`).

    Args:
        settings: of the relay.
        storage: of the session.
        leases: likewise.
        looks: likewise.
        lanes: those owned now.
        acknowledger: knows what was delivered.
        room: set when a lane can take more.
        hint: set when there is probably something to publish.
        took: told the seconds of every fetch.
    """

    def __init__(
        self,
        settings: RelaySettings,
        storage: RelayStorage,
        leases: LeaseStorage,
        looks: Looks,
        lanes: Mapping[int, Lane],
        acknowledger: Acknowledger,
        *,
        room: asyncio.Event,
        hint: asyncio.Event,
        took: Summary,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._leases = leases
        self._looks = looks
        self._lanes = lanes
        self._acknowledger = acknowledger
        self._room = room
        self._hint = hint
        self._took = took
        self._above = 0

    async def run(self) -> None:
        """Fetch for ever.

        Raises:
            psycopg.Error: the database went away.
        """
        nap = self._settings.poll_min_seconds
        backlog = False
        while True:
            self._room.clear()
            ready = [lane for lane in self._lanes.values() if self._has_room(lane)]
            if not ready or self._is_full():
                await self._room.wait()
                continue
            look = await self._looks.take()
            if any(lane.compared != self._looks.rewinds for lane in self._lanes.values()):
                await self._go_back()
            found = 0
            ready = _unsettled(ready, look)
            # A lane without room, be it that its partition is away, holds nobody back.
            front = front_of(one for lane in ready for one in lane.cursors) if ready else 0
            for group in [[lane] for lane in ready] if backlog else [ready]:
                found += await self._fetch(group, look, front, idle=not backlog)
            backlog = found >= _BACKLOG_ROWS
            if found:
                nap = self._settings.poll_min_seconds
            # However few rows a fetch gave: what lies above it is there already.
            behind = any(one < look.last_id for lane in ready for one in lane.cursors)
            if found < _NAP_BELOW_ROWS and not behind:
                told = await self._nap(nap)
                shortest, longest = self._settings.poll_min_seconds, self._settings.poll_max_seconds
                nap = shortest if told else min(nap * 2, longest)

    async def sweep(self) -> None:
        """Look for ever for pending rows below the low-water marks; there should be none.

        Raises:
            psycopg.Error: the database went away.
        """
        while True:
            await asyncio.sleep(self._settings.sweep_seconds)
            last_id = self._looks.last_id
            span = self._settings.sweep_rows
            await self._sweep_range(max(0, last_id - span), last_id)
            if self._above + span >= last_id:
                self._above = 0
            else:
                await self._sweep_range(self._above, self._above + span)
                self._above += span

    async def _fetch(self, lanes: Sequence[Lane], look: Look, front: int, *, idle: bool) -> int:
        lanes = [
            lane for lane in lanes if self._lanes.get(lane.number) is lane and self._has_room(lane)
        ]
        if not lanes or self._is_full():
            return 0
        while True:
            generations = [lane.generation for lane in lanes]
            for lane in lanes:
                lane.begin_fetch(look)
            watched = set().union(*(lane.watched(look) for lane in lanes))
            began = time.monotonic()
            reading = await self._read(lanes, look, front, idle=idle)
            self._took.observe(time.monotonic() - began)
            if not watched:
                break
            after = await self._looks.take()
            if watched <= after.floors.keys():
                break
            look = after
        found = 0
        by_lane = self._by_lane(lanes, reading.rows)
        for lane, generation in zip(lanes, generations, strict=True):
            if lane.generation == generation and not lane.leaving:
                found += self._accept(lane, by_lane.get(lane.number, []), reading, look)
        return found

    async def _read(self, lanes: Sequence[Lane], look: Look, front: int, *, idle: bool) -> _Reading:
        """Read on from the cursors."""
        numbers = [number for lane in lanes for number in lane.buckets]
        above = min(min(lane.cursors) for lane in lanes)
        if idle and look.last_id - above <= self._settings.fresh_ids:
            rows = await self._storage.fetch_fresh(lanes, above, look.last_id)
            every = dict.fromkeys(numbers, len(rows) + 1)
            return _Reading(rows, every, dict.fromkeys(numbers, look.last_id))
        most = lanes[0].limit if len(lanes) == 1 else _ROWS_WHEN_IDLE
        limits: dict[int, int] = {}
        ends: dict[int, int] = {}
        for lane in lanes:
            limits |= lane.limits(front, most)
            ends |= lane.ends(self._settings.ids_per_fetch)
        rows = await self._storage.fetch(lanes, limits, ends)
        if not rows:
            empty = await self._empty_until(min(ends.values()), look)
            ends = {number: max(end, empty) for number, end in ends.items()}
        return _Reading(rows, limits, ends)

    async def _empty_until(self, above: int, look: Look) -> int:
        """Say until which id there is no row at all, sent ones included."""
        # What nobody sees and yet takes time to be passed is above the floor of its writer.
        floor = look.last_id if look.lowest_floor is None else look.lowest_floor
        step = above + _GAP_FETCHES * self._settings.ids_per_fetch
        up_to = min(look.last_id, max(floor, step))
        return above if up_to <= above else await self._storage.empty_until(above, up_to)

    def _accept(self, lane: Lane, rows: Sequence[Fetched], reading: _Reading, look: Look) -> int:
        fresh = lane.accept(rows, reading.limits, reading.ends, look)
        if fresh:
            settings = self._settings
            lane.learn_size(fresh, settings.chunk_bytes, settings.rows_per_bucket)
            lane.offer(fresh)
        return len(fresh)

    def _by_lane(
        self, lanes: Sequence[Lane], rows: Sequence[Fetched]
    ) -> Mapping[int, Sequence[Fetched]]:
        if len(lanes) == 1:
            return {lanes[0].number: rows}
        found: dict[int, list[Fetched]] = {}
        for row in rows:
            found.setdefault(row[1] % self._settings.lanes, []).append(row)
        return found

    async def _go_back(self) -> None:
        """Take over low-water marks that somebody lowered, e.g. to requeue a row."""
        rewinds = self._looks.rewinds
        # One that begins meanwhile may have been claimed after the marks were read.
        lanes = list(self._lanes.items())
        stored = await self._leases.marks()
        for number, lane in lanes:
            moved = [
                lease
                for lease in stored.get(number, [])
                if lease.epoch == lane.epoch and lease.rewinds != lane.buckets[lease.bucket].rewinds
            ]
            lane.compared = rewinds
            if not moved:
                continue
            held = await self._held(lane)
            for lease in moved:
                lane.rewound(lease.bucket, lease.low_water, lease.rewinds)
            lane.held = held
            lane.reset(self._acknowledger.ids_of(lane))

    async def _held(self, lane: Lane) -> dict[int, int]:
        """Ask what is held back, again if a row died meanwhile: the answer may be without it."""
        while True:
            holds = lane.holds
            held = await self._leases.held(list(lane.buckets))
            if lane.holds == holds:
                return held

    async def _sweep_range(self, above: int, up_to: int) -> None:
        """Sweep from the top down: where a row is seen, what its key had before is seen after it.

        So the lowest row that is found of a bucket is where its lane reads on, whatever committed
        between two statements.
        """
        lowest: dict[int, int] = {}
        for end in range(up_to, above, -_SWEPT_AT_ONCE):
            low_waters = {
                number: bucket.low_water
                for lane in self._lanes.values()
                for number, bucket in lane.buckets.items()
            }
            if not low_waters:
                return
            begin = max(above, end - _SWEPT_AT_ONCE)
            lowest |= await self._storage.stragglers(low_waters, begin, end)
        for number, first in lowest.items():
            lane = self._lanes.get(number % self._settings.lanes)
            # It may be lost meanwhile, or told to read that row again.
            if lane is None or first > lane.buckets[number].low_water:
                continue
            _log.warning("a pending row was found below the low-water mark of bucket %d", number)
            lane.rewound(number, first - 1, lane.buckets[number].rewinds)
            lane.reset(self._acknowledger.ids_of(lane))

    async def _nap(self, seconds: float) -> bool:
        """Pause until a hint comes; says whether one did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        told = self._hint.is_set()
        self._hint.clear()
        return told

    def _has_room(self, lane: Lane) -> bool:
        most = self._settings.unacknowledged_rows
        return not lane.leaving and not lane.chunks.full() and lane.unacknowledged < most

    def _is_full(self) -> bool:
        waiting = sum(sum(lane.sizes) for lane in self._lanes.values() if not lane.apart)
        return waiting >= self._settings.waiting_bytes


def _unsettled(lanes: Sequence[Lane], look: Look) -> list[Lane]:
    found = []
    for lane in lanes:
        if lane.settled(look):
            lane.forget_acknowledged()
        else:
            found.append(lane)
    return found
