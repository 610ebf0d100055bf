"""What arrives at the broker after its session is over."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.batches import Batch
from lethe_outbox.relay.lane import Fetched, Lane, Lease
from lethe_outbox.relay.producer import Producers
from lethe_outbox.relay.publish import LanePublisher, Outlet, _Flight
from lethe_outbox.relay.session import Identity
from lethe_outbox.relay.settings import RelaySettings

ROW: Fetched = (7, 0, 1, b"t", b"k", b"p", b"")
ANYTHING: Any = None


def publisher(acknowledger: Acknowledger, metrics: RelayMetrics, lane: Lane) -> LanePublisher:
    settings = RelaySettings()
    producers = Producers("nowhere:1", settings, idempotent=True, on_state=lambda *_: None)
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
    return LanePublisher(lane, outlet, ANYTHING, ANYTHING)


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
