"""How a fetcher looks for pending rows below the low-water marks: a few ids at a time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Summary

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.fetch import Fetcher
from lethe_outbox.relay.lane import Lane, Lease
from lethe_outbox.relay.settings import RelaySettings

SETTINGS = RelaySettings()
MARK = 50_000
LAST_ID = 60_000
ANYTHING: Any = None
Statement = tuple[Mapping[int, int], int, int]


class Database:
    """Tells what it is asked, and what happens meanwhile."""

    last_id = LAST_ID

    def __init__(self) -> None:
        self.asked: list[Statement] = []
        self.pending: dict[int, Sequence[int]] = {}
        self.meanwhile: Callable[[], object] = list

    async def stragglers(
        self, low_waters: Mapping[int, int], above: int, up_to: int
    ) -> dict[int, int]:
        self.asked.append((dict(low_waters), above, up_to))
        self.meanwhile()
        found = {
            bucket: [id_ for id_ in self.pending.get(bucket, ()) if above < id_ <= min(up_to, mark)]
            for bucket, mark in low_waters.items()
        }
        return {bucket: min(ids) for bucket, ids in found.items() if ids}


@pytest.fixture
def lanes() -> dict[int, Lane]:
    return {
        number: Lane.claimed(
            number, [Lease(bucket, 1, MARK, 0) for bucket in SETTINGS.buckets_of(number)], 0.0, 2
        )
        for number in range(SETTINGS.lanes)
    }


async def sweep(lanes: Mapping[int, Lane], database: Any, above: int = 0) -> None:
    metrics = RelayMetrics(CollectorRegistry())
    room = asyncio.Event()
    fetcher = Fetcher(
        SETTINGS,
        database,
        ANYTHING,
        database,
        lanes,
        Acknowledger("tested", metrics, 100, room),
        room=room,
        hint=asyncio.Event(),
        took=Summary("tested", "tested", registry=None),
    )
    await fetcher._sweep_range(above, LAST_ID)


async def test_a_statement_looks_at_12500_ids_and_all_of_them_at_each_once_from_the_top(
    lanes: dict[int, Lane],
) -> None:
    """What died since a statement began stays until its end, and fills the pages of its row.

    What commits between two statements: the first row of its key is in the later one of them.
    """
    database = Database()
    await sweep(lanes, database, 3000)
    ranges = [(above, up_to) for _, above, up_to in database.asked]
    tops = [LAST_ID, 47_500, 35_000, 22_500, 10_000]
    assert ranges == list(zip([*tops[1:], 3000], tops, strict=True))
    assert all(sorted(low_waters) == list(range(256)) for low_waters, _, _ in database.asked)


async def test_nothing_is_asked_of_no_ids_and_of_no_lane(lanes: dict[int, Lane]) -> None:
    database = Database()
    await sweep(lanes, database, LAST_ID)
    await sweep({}, database)
    assert database.asked == []


async def test_each_bucket_is_held_against_its_mark_of_that_moment(lanes: dict[int, Lane]) -> None:
    """What was requeued below an older one would count as a row that was lost."""
    database = Database()

    def requeued() -> None:
        for lane in lanes.values():
            for bucket in lane.buckets.values():
                bucket.low_water = 1

    database.meanwhile = requeued
    await sweep(lanes, database)
    first, *others = database.asked
    assert set(first[0].values()) == {MARK}
    assert {mark for low_waters, _, _ in others for mark in low_waters.values()} == {1}


async def test_a_lane_that_is_lost_amid_a_sweep_is_asked_for_no_more(
    lanes: dict[int, Lane],
) -> None:
    database = Database()
    database.pending = {0: [7], 1: [7]}
    database.meanwhile = lanes.clear
    await sweep(lanes, database)
    assert len(database.asked) == 1


async def test_what_was_found_of_a_lane_that_is_lost_meanwhile_is_left_to_its_new_owner(
    lanes: dict[int, Lane], caplog: pytest.LogCaptureFixture
) -> None:
    database = Database()
    database.pending = {3: [48_000]}
    database.meanwhile = lambda: lanes.pop(3, None)
    await sweep(lanes, database)
    assert caplog.messages == []


async def test_what_is_found_is_read_again_by_its_lane_alone(
    lanes: dict[int, Lane], caplog: pytest.LogCaptureFixture
) -> None:
    database = Database()
    database.pending = {3: [7], 19: [40_000, 9], 4: [8, 30_000]}
    await sweep(lanes, database)
    marks = {
        number: bucket.low_water
        for lane in lanes.values()
        for number, bucket in lane.buckets.items()
        if bucket.low_water != MARK
    }
    assert marks == {3: 6, 19: 8, 4: 7}
    assert {number for number, lane in lanes.items() if lane.generation} == {3, 4}
    assert (lanes[3].buckets[3].cursor, lanes[3].buckets[35].cursor) == (6, MARK)
    assert len(caplog.messages) == 3


async def test_what_is_to_be_read_again_already_counts_as_nothing_that_was_lost(
    lanes: dict[int, Lane], caplog: pytest.LogCaptureFixture
) -> None:
    """It was requeued while a sweep was under way, and its mark lowered with it."""
    database = Database()
    database.pending = {3: [40_000]}

    def requeued() -> None:
        if database.asked[-1][1:] == (0, 10_000):
            lanes[3].rewound(3, 39_999, 1)

    database.meanwhile = requeued
    await sweep(lanes, database)
    assert lanes[3].buckets[3].low_water == 39_999
    assert (lanes[3].generation, caplog.messages) == (0, [])
