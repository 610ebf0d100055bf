"""A lane that was asked to leave ends its publisher, whatever is refused or rewound meanwhile."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.errors import InvalidTopicError
from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.batches import Batch
from lethe_outbox.relay.crew import Crew
from lethe_outbox.relay.lane import Fetched, Lane, Lease, Row
from lethe_outbox.relay.producer import RefusedError
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.publish import LanePublisher, Outlet, _Flight
from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.relay import _cancelled
from lethe_outbox.relay.settings import RelaySettings
from tests.support.waiting import until

ROW: Fetched = (7, 0, 1, b"t", b"k", b"p", b"")
REFUSED = RefusedError("invalid_topic", "InvalidTopicError")
ANYTHING: Any = None


class HoldsBack:
    """An undertaker of a topic that holds back; may be told to wait."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def bury(self, lane: Lane, row: Row, partition: int, refusal: RefusedError) -> bool:
        del partition, refusal
        self.asked.set()
        await self.may_go_on.wait()
        lane.acknowledged.append(row.id)
        lane.hold(row)
        return True


class Unwritable:
    """A producer that says of every topic that it takes nothing."""

    async def partitions(self, topic: str) -> int:
        del topic
        raise REFUSED


@pytest.fixture
def outlet() -> Outlet:
    settings, metrics = RelaySettings(), RelayMetrics(CollectorRegistry())
    producers = Producers(
        "nowhere:1", settings, idempotent=True, reach=Reach(settings, lambda *_: None)
    )
    producers._current = Unwritable()  # type: ignore[assignment]
    acknowledger = Acknowledger("tested", metrics, 100, asyncio.Event())
    room, large = asyncio.Event(), asyncio.Lock()
    return Outlet("tested", settings, metrics, producers, producers, acknowledger, room, large)


@pytest.fixture
def lane() -> Lane:
    return Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)


async def test_a_rewind_leaves_the_end_of_a_lane_that_leaves(outlet: Outlet) -> None:
    """Somebody requeues, or the janitor drops a month, before the publisher saw the end."""
    crew = Crew(outlet, ANYTHING, ANYTHING, ANYTHING)
    crew._begin(0, [Lease(0, 1, 0, 0)], {}, 0.0)
    lane = crew.lanes[0]
    lane.offer([ROW])
    crew._ask_to_leave(lane)
    lane.rewound(0, 0, 1)
    lane.reset(())
    await until(crew._publishers[lane].done, what="the end of the publisher")
    assert (list(lane.sizes), lane.buckets[0].cursor) == ([], 0)


async def test_a_lane_whose_last_flight_is_held_back_leaves(outlet: Outlet, lane: Lane) -> None:
    """The publisher took the end already when it learns of the refusal."""
    undertaker: Any = HoldsBack()
    undertaker.may_go_on.set()
    publisher = LanePublisher(lane, outlet, undertaker, ANYTHING)
    sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    sent.set_exception(InvalidTopicError())
    batch = Batch("t", 0, [ROW], refused=REFUSED)
    publisher._flying.append(_Flight(batch, ANYTHING, sent, 0.0))
    lane.leave(())
    running = asyncio.create_task(publisher.run())
    await until(running.done, what="the end of the publisher")
    assert lane.held == {0: 7}


async def test_a_lane_asked_to_leave_amid_a_chunk_that_is_held_back_leaves(
    outlet: Outlet, lane: Lane
) -> None:
    undertaker: Any = HoldsBack()
    publisher = LanePublisher(lane, outlet, undertaker, ANYTHING)
    lane.offer([ROW])
    running = asyncio.create_task(publisher.run())
    await undertaker.asked.wait()
    lane.leave(())
    undertaker.may_go_on.set()
    await until(running.done, what="the end of the publisher")
    assert (lane.held, list(lane.sizes)) == ({0: 7}, [])


async def test_a_cancellation_that_somebody_forgot_is_said_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `asyncio.wait_for` of Python 3.11 does, when what it waits for ends at that moment."""
    monkeypatch.setattr("lethe_outbox.relay.relay._CANCEL_AGAIN_SECONDS", 0.01)
    begun = asyncio.Event()

    async def forgetful() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(forgetful())
    await begun.wait()
    await asyncio.wait_for(_cancelled([task]), 10)
    assert task.cancelled()
