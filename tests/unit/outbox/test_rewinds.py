"""What a fetcher takes over from the database when a low-water mark was lowered there."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Summary

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.fetch import Fetcher
from lethe_outbox.relay.lane import Lane, Lease, Row
from lethe_outbox.relay.settings import RelaySettings

DEAD = Row(7, 0, 1, b"t", b"k", b"p", b"")
REQUEUED = Lease(0, 1, 2, 1)
ANYTHING: Any = None


class Buries:
    """A database in which a row dies, held, after the first answer to what is held was found."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.stored: dict[int, int] = {}

    async def marks(self) -> Mapping[int, Sequence[Lease]]:
        return {0: [REQUEUED]}

    async def held(self, buckets: Sequence[int]) -> dict[int, int]:
        assert list(buckets) == [0]
        answer = dict(self.stored)
        if not self.stored:
            self.stored = {0: DEAD.id}
            self.lane.hold(DEAD)
        return answer


class Looked:
    rewinds = 1


def fetcher(lane: Lane, leases: Any) -> Fetcher:
    metrics = RelayMetrics(CollectorRegistry())
    room = asyncio.Event()
    looks: Any = Looked()
    return Fetcher(
        RelaySettings(),
        ANYTHING,
        leases,
        looks,
        {0: lane},
        Acknowledger("tested", metrics, 100, room),
        room=room,
        hint=asyncio.Event(),
        took=Summary("tested", "tested", registry=None),
    )


async def test_a_key_held_back_while_a_rewind_is_taken_over_stays_held_back() -> None:
    """Else what is behind the dead row is fetched and published."""
    lane = Lane.claimed(0, [Lease(0, 1, 5, 0)], 0.0, 2)
    await fetcher(lane, Buries(lane))._go_back()
    assert lane.held == {0: DEAD.id}
    assert (lane.buckets[0].low_water, lane.buckets[0].rewinds) == (2, 1)


async def test_a_key_held_back_behind_one_that_is_requeued_stays_held_back() -> None:
    """The bucket counted as held already, for the row that was requeued."""
    lane = Lane.claimed(0, [Lease(0, 1, 2, 0)], 0.0, 2)
    lane.held = {0: 3}
    await fetcher(lane, Buries(lane))._go_back()
    assert lane.held == {0: DEAD.id}
