"""The dead letters of topics in a table: recorded by a reader, decided about in `deciding`.

The reader itself never dead-letters: what it reads is recorded as it is, whatever it is.
"""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Any, Final, Literal

from aiokafka import TopicPartition
from sqlalchemy import or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox.consumer.polling import Again, Done, GroupPoller, OnState, PollSettings, Progress
from lethe_outbox.consumer.transient import is_transient
from lethe_outbox.kafka.brokers import Bootstrap
from lethe_outbox.kafka.dead_letter_topic import (
    ATTEMPTS,
    ERROR_CLASS,
    FIRST_FAILED,
    LAST_FAILED,
    ORIGIN_OFFSET,
    ORIGIN_PARTITION,
    ORIGIN_ROW,
    ORIGIN_TOPIC,
    REASON,
    REFUSED_BY,
)
from lethe_outbox.metrics import ConsumerMetrics
from lethe_outbox.record import ConsumedHeaders, event_id_of
from lethe_outbox.schema import DEFAULT_SCHEMA, tables_in

State = Literal["open", "replayed", "discarded"]
"""What became of a dead letter."""
OPEN: Final[State] = "open"
REPLAYED: Final[State] = "replayed"
DISCARDED: Final[State] = "discarded"
UNKNOWN_REASON: Final = "unknown"

_PLACE: Final = ("topic", "partition", "offset")
_CONTENT: Final = ("key", "headers", "payload")
_LARGEST_INTEGER: Final = 2**31 - 1
_LARGEST_BIGINT: Final = 2**63 - 1
_DIGITS: Final = len(str(_LARGEST_BIGINT))


class DeadLetterReader:
    """Records every record of dead-letter topics in table `dead_letter`, each once.

    A topic that was created again uses the same offsets again: a different record at a recorded
    offset is recorded too, and the offset of the earlier one becomes `-1 - id`.

    Args:
        engine: the database of the table.
        bootstrap: the brokers.
        group: the consumer group, initialised before.
        topics: the dead-letter topics.
        metrics: lag, retries and lost offsets are told here.
        schema: where the table lives.
        settings: how the topics are polled.
        on_state: told whether the brokers answer.

    Raises:
        ArgumentError: no topic is named, or the group as a relay is.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        bootstrap: Bootstrap,
        group: str,
        topics: Sequence[str],
        metrics: ConsumerMetrics,
        *,
        schema: str | None = DEFAULT_SCHEMA,
        settings: PollSettings | None = None,
        on_state: OnState | None = None,
    ) -> None:
        self._engine = engine
        self._group = group
        self._metrics = metrics
        self._table = tables_in(schema).dead_letter
        self._poller = GroupPoller(
            bootstrap,
            group,
            topics,
            self._work,
            metrics,
            settings=settings or PollSettings(batch_records=100),
            on_state=on_state,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`.

        Raises:
            OffsetsLostError: going on would skip dead letters.
        """
        await self._poller.run(stop)

    async def _work(
        self, polled: Mapping[TopicPartition, Sequence[Any]]
    ) -> Mapping[TopicPartition, Progress]:
        rows = [_row(consumed) for records in polled.values() for consumed in records]
        try:
            async with self._engine.begin() as connection:
                await self._record(connection, rows)
        except Exception as error:
            if not is_transient(error):
                raise
            for partition in polled:
                self._metrics.retries.labels(group=self._group, topic=partition.topic).inc()
            return {one: Again(records[0].offset) for one, records in polled.items()}
        for partition, records in polled.items():
            self._metrics.records.labels(
                group=self._group, topic=partition.topic, outcome="handled"
            ).inc(len(records))
        return {one: Done(records[-1].offset + 1) for one, records in polled.items()}

    async def _record(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        c = self._table.c
        new = insert(self._table).on_conflict_do_nothing(index_elements=_PLACE)
        done = await connection.execute(new.returning(c.topic, c.partition, c.offset), rows)
        recorded = {tuple(row) for row in done}
        for row in rows:
            place = tuple(row[name] for name in _PLACE)
            if place not in recorded and await self._gave_way(connection, row):
                await connection.execute(new, row)

    async def _gave_way(self, connection: AsyncConnection, row: dict[str, Any]) -> bool:
        """Move a different record, of an earlier topic, away from the offset of `row`, if any."""
        c = self._table.c
        another = or_(*(c[name].is_distinct_from(row[name]) for name in _CONTENT))
        moved = await connection.execute(
            update(self._table)
            .where(*(c[name] == row[name] for name in _PLACE), another)
            .values({c.offset: -1 - c.id})
        )
        return moved.rowcount > 0


def pack_any_headers(headers: ConsumedHeaders) -> bytes:
    """Write whatever headers a record had: a JSON list of [name, base64 or null]."""
    return json.dumps(
        [
            [name, None if value is None else base64.b64encode(value).decode()]
            for name, value in headers
        ]
    ).encode()


def unpack_any_headers(packed: bytes) -> ConsumedHeaders:
    """Read what `pack_any_headers` wrote."""
    return tuple(
        (name, None if value is None else base64.b64decode(value))
        for name, value in json.loads(packed)
    )


def origin_row(headers: ConsumedHeaders) -> int | None:
    """Read the id of the outbox row that a dead letter of a relay comes from."""
    return _number(_texts(headers).get(ORIGIN_ROW), _LARGEST_BIGINT)


def _row(consumed: Any) -> dict[str, Any]:
    headers: ConsumedHeaders = tuple(consumed.headers)
    texts = _texts(headers)
    return {
        "topic": consumed.topic,
        "partition": consumed.partition,
        "offset": consumed.offset,
        "key": consumed.key,
        "event_id": event_id_of(headers),
        "reason": texts.get(REASON) or UNKNOWN_REASON,
        "error_class": texts.get(ERROR_CLASS),
        "refused_by": texts.get(REFUSED_BY),
        "attempts": _number(texts.get(ATTEMPTS), _LARGEST_INTEGER),
        "origin_topic": texts.get(ORIGIN_TOPIC),
        "origin_partition": _number(texts.get(ORIGIN_PARTITION), _LARGEST_INTEGER),
        "origin_offset": _number(texts.get(ORIGIN_OFFSET), _LARGEST_BIGINT),
        "first_failed_at": _moment(texts.get(FIRST_FAILED)),
        "last_failed_at": _moment(texts.get(LAST_FAILED)),
        "headers": pack_any_headers(headers),
        "payload": consumed.value,
    }


def _texts(headers: ConsumedHeaders) -> dict[str, str]:
    # PostgreSQL's text takes everything but NUL.
    return {
        name: value.decode("utf-8", errors="replace").replace("\0", "�")
        for name, value in headers
        if value is not None
    }


def _number(text: str | None, largest: int) -> int | None:
    # Anybody may have written the header, and `int` refuses thousands of digits.
    if text is None or len(text) > _DIGITS or not (text.isascii() and text.isdigit()):
        return None
    return min(int(text), largest)


def _moment(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        found = found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    # A session's time zone may move it by a day, and no driver reads a year beyond these.
    return found if MINYEAR < found.year < MAXYEAR else None
