"""By which producer rows are sent, how often, and beside whom."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.batches import Batch
from lethe_outbox.relay.lane import Fetched, Lane, Lease
from lethe_outbox.relay.producer import BrokenError, RefusedError
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.publish import LanePublisher
from tests.unit.outbox.test_late_arrivals import ROW, publisher

LATE = BrokenError("TimeoutError", late=True)
SPENT = BrokenError("ProducerFenced", answered=True)


@pytest.fixture
def lane() -> Lane:
    return Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)


@pytest.fixture
def sending(lane: Lane) -> LanePublisher:
    metrics = RelayMetrics(CollectorRegistry())
    return publisher(Acknowledger("tested", metrics, 100, asyncio.Event()), metrics, lane)


async def test_what_was_late_once_is_sent_apart_until_it_is_dealt_with(
    lane: Lane, sending: LanePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = sending._outlet.producers
    outcomes = [SPENT, LATE, SPENT, None]
    tries: list[tuple[bool, bool]] = []

    async def tried(pool: Producers, batch: Batch) -> BrokenError | None:
        del batch
        tries.append((pool is shared, lane.apart))
        return outcomes.pop(0)

    monkeypatch.setattr(sending, "_try", tried)
    await sending._deliver(shared, Batch("t", 0, [ROW]))
    assert tries == [(True, False), (True, False), (False, True), (False, True)]
    assert not lane.apart


async def test_what_brokers_answer_badly_five_times_is_refused(
    sending: LanePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one record that no broker can take would keep its lane for ever."""
    tries: list[Batch] = []

    async def answered(pool: Producers, batch: Batch) -> BrokenError:
        del pool
        tries.append(batch)
        # What is late says nothing of the record.
        return LATE if len(tries) == 1 else SPENT

    monkeypatch.setattr(sending, "_try", answered)
    with pytest.raises(RefusedError, match="rejected"):
        await sending._deliver(sending._outlet.producers, Batch("t", 0, [ROW]))
    assert len(tries) == 6


@pytest.mark.parametrize(("size", "alone"), [(4 * 1024 * 1024, True), (1024, False)])
def test_large_rows_fly_one_after_another(
    sending: LanePublisher, size: int, *, alone: bool
) -> None:
    row: Fetched = (*ROW[:5], bytes(size), b"")
    turn = sending._turn(sending._outlet.careful, Batch("t", 0, [row]))
    assert (turn is sending._outlet.large) is alone
