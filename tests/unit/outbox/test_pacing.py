"""Buckets of a backlog are read at about the same place, and nobody waits for one far behind."""

from bisect import bisect_right
from collections.abc import Sequence

import pytest

from lethe_outbox.relay.horizon import Look
from lethe_outbox.relay.lane import Lane, Lease
from lethe_outbox.relay.pacing import AHEAD_IDS, FAR_IDS, front_of, rows_at

LAST_ID = 1_000_000
LIMIT = 100


def read(rows: Sequence[Sequence[int]], up_to: int) -> int:
    """Read the buckets of a lane until one is past `up_to`; gives how far apart they came."""
    lane = Lane.claimed(0, [Lease(number, 1, 0, 0) for number in range(len(rows))], 0.0, 2)
    lane.limit = LIMIT
    apart = 0
    while max(lane.cursors) < up_to:
        limits = lane.limits(front_of(lane.cursors), LIMIT)
        found = []
        for number, bucket in lane.buckets.items():
            first = bisect_right(rows[number], bucket.cursor)
            found += [
                (one, number, 0, b"t", b"k", b"", b"")
                for one in rows[number][first : first + limits[number]]
            ]
        lane.accept(found, limits, lane.ends(LAST_ID), Look(LAST_ID))
        apart = max(apart, max(lane.cursors) - min(lane.cursors))
    return apart


@pytest.mark.parametrize("every", [(2, 2, 2), (2, 3, 6), (3, 3, 4, 12)], ids=str)
def test_however_many_rows_each_has_they_stay_together(every: tuple[int, ...]) -> None:
    """Bucket n has one row in `every[n]` ids: it would run ahead by the ratio of the densest."""
    assert read([range(one, LAST_ID, one) for one in every], LAST_ID // 2) <= 2 * AHEAD_IDS


def test_without_giving_way_they_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lethe_outbox.relay.pacing._SHARE", 1)
    assert read([range(one, LAST_ID, one) for one in (2, 3, 6)], LAST_ID // 2) > 4 * AHEAD_IDS


def test_a_bucket_far_behind_is_waited_for_by_nobody() -> None:
    """As one hot key's may be, with new events of all others coming at the end."""
    assert front_of([0, LAST_ID - 10, LAST_ID, LAST_ID]) == LAST_ID - 10
    assert front_of([LAST_ID - FAR_IDS, LAST_ID, LAST_ID]) == LAST_ID - FAR_IDS
    assert front_of([7]) == 7


@pytest.mark.parametrize(
    ("cursor", "limit", "rows"),
    [(0, 100, 100), (AHEAD_IDS, 100, 100), (AHEAD_IDS + 1, 100, 25), (AHEAD_IDS + 1, 3, 1)],
)
def test_whoever_is_ahead_gives_way_and_is_never_stopped(
    cursor: int, limit: int, rows: int
) -> None:
    assert rows_at(cursor, 0, limit) == rows
