"""Which partitions there should be, without a database."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_outbox.partitions.monthly import (
    BY_TIME,
    BY_UUID7,
    Partition,
    PartitionKey,
    Span,
    first_uuid7,
    free_name,
    later_part,
    missing,
    months,
    older,
    parse_bounds,
    spans_of,
)

NOW = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)


def day(month: int, number: int = 1, year: int = 2026) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


def partition(span: Span | None, oid: int = 1) -> Partition:
    return Partition(oid, "lethe", f"p{oid}", span)


NOVEMBER, DECEMBER = Span(day(11), day(12)), Span(day(12), day(1, year=2027))


def test_months_cross_the_year() -> None:
    assert months(NOW, 1) == [NOVEMBER, DECEMBER]


def test_spans_are_the_earliest_first_in_whatever_order_the_catalog_has_them() -> None:
    present = [partition(DECEMBER), partition(None), partition(NOVEMBER)]
    assert spans_of(present) == [NOVEMBER, DECEMBER]


def test_a_month_is_utcs() -> None:
    seoul = datetime.fromisoformat("2026-12-01T08:59:59+09:00")
    assert months(seoul, 0) == [NOVEMBER]


def test_nothing_is_missing_where_months_are_covered_however_they_are_cut() -> None:
    halves = [Span(day(11), day(11, 15)), Span(day(11, 15), day(12))]
    assert missing([partition(None), *map(partition, halves)], NOW, 0) == []


def test_what_is_missing_is_what_no_range_covers() -> None:
    present = [partition(None), partition(Span(day(11, 10), day(11, 12)))]
    assert missing(present, NOW, 1) == [
        Span(day(11), day(11, 10)),
        Span(day(11, 12), day(12)),
        DECEMBER,
    ]


@given(st.lists(st.tuples(st.integers(-60, 120), st.integers(1, 40)), max_size=8))
def test_what_is_made_leaves_nothing_missing_and_overlaps_nothing(
    cuts: list[tuple[int, int]],
) -> None:
    present: list[Partition] = []
    end = day(9)
    for gap, length in cuts:
        start = max(end, end + timedelta(days=gap))
        end = start + timedelta(days=length)
        present.append(partition(Span(start, end)))
    made = missing(present, NOW, 2)
    taken = sorted(
        [one.span for one in present if one.span is not None] + made, key=lambda span: span.start
    )
    assert all(a.end <= b.start for a, b in pairwise(taken))
    assert missing([partition(span) for span in taken], NOW, 2) == []


def test_old_is_what_ended_at_or_before_the_moment_and_never_the_default() -> None:
    old, ends_now = partition(Span(day(8), day(9)), 1), partition(Span(day(9), day(10)), 2)
    present = [partition(NOVEMBER, 3), ends_now, partition(None, 4), old]
    assert older(present, day(10)) == [old, ends_now]
    assert older(present, day(10) - timedelta(microseconds=1)) == [old]


def test_a_partition_beside_a_full_default_begins_the_day_after_tomorrow() -> None:
    assert later_part(NOVEMBER, NOW) == Span(day(11, 22), day(12))
    assert later_part(DECEMBER, NOW) == DECEMBER
    assert later_part(NOVEMBER, day(11, 29)) is None


@pytest.mark.parametrize(
    ("expression", "key", "span"),
    [
        (
            "FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00')",
            BY_TIME,
            NOVEMBER,
        ),
        (
            f"FOR VALUES FROM ('{first_uuid7(day(11))}') TO ('{first_uuid7(day(12))}')",
            BY_UUID7,
            NOVEMBER,
        ),
        ("DEFAULT", BY_TIME, None),
        (None, BY_TIME, None),
    ],
)
def test_bounds_are_read_as_postgresql_shows_them(
    expression: str | None, key: PartitionKey, span: Span | None
) -> None:
    assert parse_bounds(expression, key) == span


def test_open_ends_cover_everything_on_their_side() -> None:
    found = parse_bounds("FOR VALUES FROM (MINVALUE) TO ('2026-11-01 00:00:00+00')", BY_TIME)
    assert found is not None
    assert older([partition(found)], day(11)) == [partition(found)]
    named = parse_bounds("FOR VALUES FROM ('-infinity') TO ('infinity')", BY_TIME)
    open_ends = parse_bounds("FOR VALUES FROM (MINVALUE) TO (MAXVALUE)", BY_TIME)
    assert named is not None
    assert named == open_ends
    last = parse_bounds(
        f"FOR VALUES FROM ('{first_uuid7(day(11))}') TO ('ffffffff-ffff-ffff-ffff-ffffffffffff')",
        BY_UUID7,
    )
    assert last is not None
    assert missing([partition(last)], NOW, 20) == []


def test_a_list_partition_is_not_understood() -> None:
    with pytest.raises(ValueError, match="not a range"):
        parse_bounds("FOR VALUES IN (1)", BY_TIME)


def test_names_say_the_month_and_never_clash() -> None:
    assert free_name("outbox", NOVEMBER, []) == "outbox_2026_11"
    assert free_name("outbox", Span(day(11, 22), day(12)), []) == "outbox_2026_11_22"
    taken = ["outbox_2026_11", "outbox_2026_11_2"]
    assert free_name("outbox", NOVEMBER, taken) == "outbox_2026_11_3"
