"""What is marked of that which arrives late: after its session, or around the end of its lease."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.batches import Batch
from lethe_outbox.relay.lane import Fetched, Lane, Lease
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.publish import LanePublisher, Outlet, _Flight
from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.session import Identity
from lethe_outbox.relay.settings import RelaySettings
from lethe_outbox.relay.storage import Fence

ROW: Fetched = (7, 0, 1, b"t", b"k", b"p", b"")
ANYTHING: Any = None


def publisher(
    acknowledger: Acknowledger, metrics: RelayMetrics, lane: Lane, storage: Any = None
) -> LanePublisher:
    settings = RelaySettings()
    producers = Producers(
        "nowhere:1", settings, idempotent=True, reach=Reach(settings, lambda *_: None)
    )
    outlet = Outlet(
        "tested",
        settings,
        metrics,
        producers,
        producers,
        acknowledger,
        asyncio.Event(),
        asyncio.Lock(),
    )
    return LanePublisher(lane, outlet, ANYTHING, storage)


@pytest.mark.parametrize(("timeline", "marked"), [("00000001", {7}), ("00000002", set())])
async def test_a_late_arrival_is_marked_in_no_other_history(
    timeline: str, marked: set[int]
) -> None:
    """After a restore, owner, epoch and id may be those of another row."""
    metrics = RelayMetrics(CollectorRegistry())
    acknowledger = Acknowledger("tested", metrics, 100, asyncio.Event())
    acknowledger.begin(identity("00000001"))
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)
    late = publisher(acknowledger, metrics, lane)
    sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    flight = _Flight(Batch("t", 0, [ROW]), ANYTHING, sent, 0.0)
    acknowledger.begin(identity(timeline))
    sent.set_result(None)
    late._arrived_late(flight, sent)
    assert acknowledger.ids_of(lane) == marked


def identity(timeline: str) -> Identity:
    return Identity(1, timeline, ANYTHING)


class Settled:
    """A database in which nothing of what was fetched is pending any more."""

    async def payloads(self, ids: Iterable[int], most_bytes: int) -> dict[int, tuple[bytes, bytes]]:
        del ids, most_bytes
        return {}


async def test_a_large_row_that_somebody_else_dealt_with_is_not_waited_for() -> None:
    """Else no low-water mark would pass it, and it would take its lane's room for ever."""
    metrics = RelayMetrics(CollectorRegistry())
    acknowledger = Acknowledger("tested", metrics, 100, asyncio.Event())
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)
    settled = publisher(acknowledger, metrics, lane, storage=Settled())
    large: Any = (*ROW[:5], None, None)
    assert [rows async for rows in settled._loaded([large])] == []
    assert lane.acknowledged == [7]


class Leased:
    """A database in which the lease has ended, and is renewed after the first refused mark."""

    owner = ANYTHING

    def __init__(self) -> None:
        self.renewed = False
        self.pending = {7}
        self.asked = 0

    async def acknowledge(self, part: int, ids: Iterable[int], fence: Fence) -> int:
        del part, fence
        self.asked += 1
        if not self.renewed:
            self.renewed = True
            return 0
        marked = self.pending & set(ids)
        self.pending -= marked
        return len(marked)

    async def owned(self, fence: Fence) -> bool:
        del fence
        return self.renewed

    async def any_pending(self, part: int, ids: Iterable[int]) -> bool:
        del part
        return bool(self.pending & set(ids))


async def test_a_mark_that_was_refused_before_the_lease_was_renewed_is_made_again() -> None:
    """Else the row would be taken for marked, and the low-water mark would pass it."""
    acknowledger = Acknowledger("tested", RelayMetrics(CollectorRegistry()), 100, asyncio.Event())
    acknowledger.begin(identity("00000001"))
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)
    acknowledger.delivered(lane, [ROW])
    database: Any = Leased()
    await acknowledger.flush(database, ANYTHING)
    assert database.pending == set()
    assert lane.acknowledged == [7]
    assert database.asked == 2
