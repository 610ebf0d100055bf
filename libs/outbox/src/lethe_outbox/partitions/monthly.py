"""Monthly range partitions of a table: which there are, which are missing, which are old.

Pure: `partition_storage` asks the database and changes it. A partitioned table has a key that
carries time (a timestamp, or a UUIDv7), range partitions of that key made ahead, and a default
partition that takes what no range is there for, so that a late janitor fails nobody's transaction.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Final
from uuid import UUID

from lethe_outbox.errors import ArgumentError

_BOUNDS: Final = re.compile(r"^FOR VALUES FROM \((.+)\) TO \((.+)\)$")
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_OPEN: Final = {
    "MINVALUE": _FIRST,
    "MAXVALUE": _LAST,
    "'-infinity'": _FIRST,
    "'infinity'": _LAST,
}


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open interval of time, in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as the catalog shows it.

    Attributes:
        oid: its number, as `tableoid` gives it.
        schema: where it stands.
        name: its unqualified name.
        span: the time its rows' keys carry; None for the default partition.
    """

    oid: int
    schema: str
    name: str
    span: Span | None


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """How a moment stands in a partition key.

    Attributes:
        column: the key.
        literal: writes a moment as the smallest key of that moment, without quotes.
        moment: reads such a key.
    """

    column: str
    literal: Callable[[datetime], str]
    moment: Callable[[str], datetime]


def first_uuid7(moment: datetime) -> UUID:
    """Return the smallest UUID whose first 48 bits are `moment` in milliseconds (RFC 9562, 5.7)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def _of_uuid7(literal: str) -> datetime:
    try:
        return datetime.fromtimestamp((UUID(literal).int >> 80) / 1000, UTC)
    except (OverflowError, ValueError):
        # Somebody's own upper bound, e.g. ffffffff-...
        return _LAST


BY_TIME: Final = PartitionKey("created_at", datetime.isoformat, datetime.fromisoformat)
"""The outbox: `created_at timestamptz`, read and written in sessions on UTC."""

BY_UUID7: Final = PartitionKey("event_id", lambda moment: str(first_uuid7(moment)), _of_uuid7)
"""The inbox: `event_id uuid`, of which a UUIDv7 carries its time."""


def default_of(present: Iterable[Partition]) -> Partition | None:
    """Find the default partition."""
    return next((one for one in present if one.span is None), None)


def spans_of(present: Iterable[Partition]) -> list[Span]:
    """List the spans of the range partitions, the earliest first."""
    spans = (one.span for one in present if one.span is not None)
    return sorted(spans, key=lambda span: span.start)


def months(now: datetime, ahead: int) -> list[Span]:
    """Give the month of `now` and the `ahead` ones after it, in UTC."""
    first = now.astimezone(UTC)
    number = first.year * 12 + first.month - 1
    starts = [
        datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
        for month in range(number, number + ahead + 2)
    ]
    return [Span(start, end) for start, end in pairwise(starts)]


def missing(present: Iterable[Partition], now: datetime, ahead: int) -> list[Span]:
    """List what no range partition covers of this month and the `ahead` ones after it."""
    taken = spans_of(present)
    return [gap for month in months(now, ahead) for gap in _gaps(month, taken)]


def older(present: Iterable[Partition], than: datetime) -> list[Partition]:
    """Give the range partitions that end at or before `than`, the oldest first."""
    ended = [(one.span.end, one) for one in present if one.span is not None]
    return [one for end, one in sorted(ended, key=lambda pair: pair[0]) if end <= than]


def later_part(span: Span, now: datetime) -> Span | None:
    """Return `span` from the day after tomorrow on, for which no row can have been written yet."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = max(span.start, today + timedelta(days=2))
    return Span(start, span.end) if start < span.end else None


def parse_bounds(expression: str | None, key: PartitionKey) -> Span | None:
    """Read what `pg_get_expr(relpartbound, oid)` gives; None for a default partition.

    Raises:
        ArgumentError: the partition is not of a range of one column that carries time.
    """
    if expression is None or expression == "DEFAULT":
        return None
    found = _BOUNDS.match(expression)
    if found is None:
        raise ArgumentError("not a range partition")
    start, end = found.groups()
    return Span(_bound(start, key), _bound(end, key))


def free_name(table: str, span: Span, taken: Iterable[str]) -> str:
    """Name the partition of a span: `outbox_2026_11`, or with its day if it begins within one."""
    form = "%Y_%m" if span.start.day == 1 else "%Y_%m_%d"
    base = f"{table}_{span.start.strftime(form)}"
    names = set(taken)
    return next(name for n in count(1) if (name := base if n == 1 else f"{base}_{n}") not in names)


def _gaps(month: Span, taken: Sequence[Span]) -> Iterable[Span]:
    at = month.start
    for span in taken:
        if span.end <= at or span.start >= month.end:
            continue
        if span.start > at:
            yield Span(at, span.start)
        at = span.end
    if at < month.end:
        yield Span(at, month.end)


def _bound(literal: str, key: PartitionKey) -> datetime:
    return _OPEN[literal] if literal in _OPEN else key.moment(literal.strip("'"))
