"""What a fetcher takes over from the database when a low-water mark was lowered there."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Summary

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.fetch import Fetcher
from lethe_outbox.relay.horizon import Look
from lethe_outbox.relay.lane import Lane, Lease, Row
from lethe_outbox.relay.settings import RelaySettings
from tests.support.waiting import until

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


class Compared:
    """A database in which nothing is to be published, and what is asked of it at each look."""

    def __init__(self) -> None:
        self.rewinds = 0
        self.while_it_is_read = 0
        self.looks = 0
        self.questions = 0

    async def take(self) -> Look:
        self.looks += 1
        return Look()

    async def marks(self) -> Mapping[int, Sequence[Lease]]:
        self.questions += 1
        self.rewinds += self.while_it_is_read
        self.while_it_is_read = 0
        return {}

    async def looked(self, more: int) -> int:
        """Wait for so many looks that began after this call; gives how often marks were read."""
        goal = self.looks + more + 1
        await until(lambda: self.looks >= goal)
        return self.questions


def fetcher(lane: Lane, leases: Any, looks: Any = Looked) -> Fetcher:
    metrics = RelayMetrics(CollectorRegistry())
    room = asyncio.Event()
    return Fetcher(
        RelaySettings(poll_min_seconds=0.0001, poll_max_seconds=0.0001),
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


async def test_marks_are_read_once_for_a_lane_and_for_every_time_one_was_lowered() -> None:
    """And not at every look, nor never: what was requeued would wait for the next relay."""
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)
    database = Compared()
    running = asyncio.create_task(fetcher(lane, database, database).run())
    # The first time because one may have been lowered since the claim read them.
    assert await database.looked(3) == 1
    database.rewinds = 1
    assert await database.looked(3) == 2
    database.rewinds = 2
    # One comes that the answer may be without.
    database.while_it_is_read = 1
    assert await database.looked(3) == 4
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
