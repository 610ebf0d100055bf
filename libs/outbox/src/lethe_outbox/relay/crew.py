"""The lanes a relay owns and their publishers: claiming, renewing, giving up, leaving in order."""

import asyncio
import logging
from collections.abc import Callable
from math import ceil

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.bury import Undertaker
from lethe_outbox.relay.lane import Lane, LaneLostError, Lease, lease_time
from lethe_outbox.relay.lease_storage import LeaseStorage
from lethe_outbox.relay.publish import LanePublisher, Outlet
from lethe_outbox.relay.storage import RelayStorage

_log = logging.getLogger(__name__)


class Crew:
    """Keeps the leases of this relay's fair share of lanes, each with a publisher.

    Attributes:
        lanes: those owned now, by number.
        failed: ends with the error of a publisher that the relay cannot go on after.
    """

    def __init__(
        self,
        outlet: Outlet,
        leases: LeaseStorage,
        undertaker: Undertaker,
        storage: RelayStorage,
    ) -> None:
        self._outlet = outlet
        self._settings = outlet.settings
        self._leases = leases
        self._undertaker = undertaker
        self._storage = storage
        self._publishers: dict[Lane, asyncio.Task[None]] = {}
        self.lanes: dict[int, Lane] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Keep the leases for ever.

        Raises:
            psycopg.Error: the database went away.
        """
        while True:
            await self._turn()
            await asyncio.sleep(self._settings.renew_seconds)

    async def drain(self) -> None:
        """Let the publishers finish what flies, then give every lane back.

        Raises:
            psycopg.Error: the database went away.
        """
        for lane in self.lanes.values():
            self._ask_to_leave(lane)
        publishers = list(self._publishers.values())
        if publishers:
            await asyncio.wait(publishers, timeout=self._settings.publish_seconds)

    async def release(self) -> None:
        """Give every lane back and deregister, after `drain` and the last acknowledgement."""
        for lane in self.lanes.values():
            lane.raise_low_waters()
        await self._leases.release(self.lanes.values())
        await self._leases.deregister()
        self._gauge(0)

    async def cancel(self) -> None:
        """End every publisher at once."""
        publishers = list(self._publishers.values())
        for publisher in publishers:
            publisher.cancel()
        await asyncio.gather(*publishers, return_exceptions=True)
        if not self.failed.cancel() and not self.failed.cancelled():
            self.failed.exception()
        self._gauge(0)

    def lost(self, lane: Lane) -> None:
        """Stop publishing a lane that belongs to another relay by now."""
        self._outlet.acknowledger.forget(lane)
        if self.lanes.get(lane.number) is not lane:
            return
        _log.warning("lane %d belongs to another relay by now", lane.number)
        del self.lanes[lane.number]
        lane.leaving = True
        self._publishers[lane].cancel()
        self._gauge(len(self.lanes))

    async def _turn(self) -> None:
        began = lease_time()
        alive = await self._leases.register()
        for lane in self.lanes.values():
            lane.raise_low_waters()
        kept = await self._leases.renew(list(self.lanes.values()))
        for number, lane in list(self.lanes.items()):
            if number not in kept or kept[number][0].epoch != lane.epoch:
                self.lost(lane)
                continue
            lane.deadline = self._deadline(began)
            lane.renewed.set()
        await self._let_go()
        wanted = ceil(self._settings.lanes / max(1, alive))
        if len(self.lanes) < wanted:
            await self._claim(wanted - len(self.lanes))
        staying = [lane for lane in self.lanes.values() if not lane.leaving]
        for lane in staying[wanted:]:
            self._ask_to_leave(lane)
        self._gauge(len(self.lanes))

    async def _claim(self, most: int) -> None:
        began = lease_time()
        claimed = await self._leases.claim(most, list(self.lanes))
        if not claimed:
            return
        buckets = [lease.bucket for leases in claimed.values() for lease in leases]
        held = await self._leases.held(buckets)
        for number, leases in claimed.items():
            self._begin(number, leases, held, self._deadline(began))
        _log.info("claimed %d lanes, %d owned", len(claimed), len(self.lanes))

    def _begin(
        self, number: int, leases: list[Lease], held: dict[int, int], deadline: float
    ) -> None:
        lane = Lane.claimed(number, leases, deadline, self._settings.chunks_ahead)
        lane.held = {bucket: held[bucket] for bucket in lane.buckets if bucket in held}
        publisher = LanePublisher(lane, self._outlet, self._undertaker, self._storage)
        task = asyncio.create_task(publisher.run(), name=f"lane-{number}")
        self._publishers[lane] = task
        self.lanes[number] = lane
        task.add_done_callback(self._ended(lane))
        self._outlet.room.set()

    def _ended(self, lane: Lane) -> Callable[[asyncio.Task[None]], None]:
        def note(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, LaneLostError):
                self.lost(lane)
            elif error is not None and not self.failed.done():
                self.failed.set_exception(error)
            if self.lanes.get(lane.number) is not lane:
                self._publishers.pop(lane, None)

        return note

    def _ask_to_leave(self, lane: Lane) -> None:
        if not lane.leaving:
            lane.leave(self._outlet.acknowledger.ids_of(lane))

    async def _let_go(self) -> None:
        """Release the lanes that were asked to leave and have nothing on its way any more."""
        gone = [
            lane
            for lane in self.lanes.values()
            if lane.leaving
            and self._publishers[lane].done()
            and self._outlet.acknowledger.empty(lane)
        ]
        for lane in gone:
            lane.taken.clear()
            lane.raise_low_waters()
            del self.lanes[lane.number]
            del self._publishers[lane]
        if gone:
            await self._leases.release(gone)

    def _deadline(self, began: float) -> float:
        return began + self._settings.lease_seconds - self._settings.margin_seconds

    def _gauge(self, lanes: int) -> None:
        metrics: RelayMetrics = self._outlet.metrics
        owned = lanes * len(self._settings.buckets_of(0))
        metrics.buckets_owned.labels(self._outlet.outbox).set(owned)
