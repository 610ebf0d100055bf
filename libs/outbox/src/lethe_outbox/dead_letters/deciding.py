"""Deciding about dead letters: sending them back, or giving them up for good.

A dead letter is open until it is replayed or discarded, and every such decision leaves a row that
says who, when and why. A replay publishes and then commits: killed in between it stays open, and
the next replay publishes the same event id again, which the consumers' inbox makes harmless.

A record that Kafka refused to a relay is still a row of its outbox, which may hold its key back. It
is requeued there, in order (`operations.requeue`), and replayed from here only on request;
`close_published` closes its dead letter once the event was seen in its topic.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    RowMapping,
    Table,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox.dead_letters.reader import DISCARDED, OPEN, REPLAYED, State, unpack_any_headers
from lethe_outbox.errors import ArgumentError
from lethe_outbox.kafka.brokers import Bootstrap
from lethe_outbox.kafka.dead_letter_topic import RELAY_PREFIX, DeadLetterProducer, original_headers
from lethe_outbox.partitions.monthly import BY_UUID7
from lethe_outbox.schema import DEFAULT_SCHEMA, OutboxTables, tables_in

_CHUNK: Final = 500
_UUID7: Final = 7


class Fate(StrEnum):
    """What became of a dead letter that somebody decided about. The names are a contract."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"
    REPLAYED_BEFORE = "replayed_before"
    DISCARDED_BEFORE = "discarded_before"
    UNKNOWN = "unknown"
    """There is no such dead letter."""
    WITHOUT_ORIGIN = "without_origin"
    """It names no topic to go back to, or one that is not allowed."""
    IN_OUTBOX = "in_outbox"
    """Kafka refused it to a relay: its row is still in the outbox, to be requeued there."""
    TOO_OLD = "too_old"
    """The inboxes of its consumers may have forgotten its event, and would handle it again."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How dead letters are sent back.

    Raises:
        ArgumentError: `per_second` is not positive.
    """

    by: str
    """Who decided."""
    origins: Collection[str] | None = None
    """Topics that may be written; None for whatever a dead letter names as its origin."""
    inbox_keeps: timedelta | None = None
    """Refuse events older than consumers remember them; None replays whatever its age."""
    from_outbox_too: bool = False
    """Also replay what Kafka refused to a relay, out of the outbox's order."""
    per_second: float | None = None
    """At most so many; None for as fast as it goes."""

    def __post_init__(self) -> None:
        if self.per_second is not None and self.per_second <= 0:
            raise ArgumentError("per_second must be positive")


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided about a dead letter."""

    letter: int
    decision: State
    decided_by: str
    reason: str | None
    decided_at: datetime


OnFate = Callable[[int, Fate], None]


def refused_by_relay(refused_by: str | None, origin_offset: int | None) -> bool:
    """Say whether a dead letter was refused to a relay, and so was never published."""
    return (refused_by or "").startswith(RELAY_PREFIX) and origin_offset is None


async def judge(
    engine: AsyncEngine,
    ids: Iterable[int],
    options: ReplayOptions | None,
    *,
    schema: str | None = DEFAULT_SCHEMA,
) -> dict[int, Fate]:
    """Predict what `replay` would do with each, or `discard` if `options` is None."""
    table = tables_in(schema).dead_letter
    chosen = sorted(set(ids))
    fates: dict[int, Fate] = {}
    async with engine.connect() as connection:
        for chunk in _chunks(chosen):
            rows = await _rows(connection, table, chunk)
            for one in chunk:
                if options is None:
                    fates[one] = _closed(rows.get(one)) or Fate.DISCARDED
                else:
                    fates[one] = _fate(rows.get(one), options) or Fate.REPLAYED
    return fates


async def replay(
    engine: AsyncEngine,
    bootstrap: Bootstrap,
    ids: Iterable[int],
    options: ReplayOptions,
    *,
    schema: str | None = DEFAULT_SCHEMA,
    on_fate: OnFate | None = None,
) -> dict[int, Fate]:
    """Publish dead letters again where they came from: same event id, original bytes, in order.

    Each is published and then noted as replayed under a lock of its row, so two replays publish it
    once. Safe to repeat: what was replayed is not sent again.

    Raises:
        KafkaError: the broker did not take one, or was silent; those before it are done.
    """
    table = tables_in(schema)
    producer = DeadLetterProducer(bootstrap)
    pace = _Pace(options.per_second)
    fates: dict[int, Fate] = {}
    try:
        for letter in sorted(set(ids)):
            async with engine.begin() as connection:
                fates[letter] = await _replay_one(
                    connection, producer, letter, options, table, pace
                )
            if on_fate is not None:
                on_fate(letter, fates[letter])
    finally:
        await producer.close()
    return fates


async def discard(
    engine: AsyncEngine,
    ids: Iterable[int],
    *,
    by: str,
    reason: str,
    schema: str | None = DEFAULT_SCHEMA,
    on_fate: OnFate | None = None,
) -> dict[int, Fate]:
    """Give dead letters up for good; `by` and `reason` are kept. Only open ones are discarded.

    Raises:
        ArgumentError: `by` or `reason` is empty.
    """
    if not by.strip() or not reason.strip():
        raise ArgumentError("a discard needs somebody's name and a reason")
    tables = tables_in(schema)
    fates: dict[int, Fate] = {}
    for chunk in _chunks(sorted(set(ids))):
        async with engine.begin() as connection:
            rows = await _rows(connection, tables.dead_letter, chunk, lock=True)
            found = {one: _closed(rows.get(one)) or Fate.DISCARDED for one in chunk}
            done = [one for one, fate in found.items() if fate is Fate.DISCARDED]
            await _close(connection, tables, done, DISCARDED, by, reason)
        for one, fate in found.items():
            fates[one] = fate
            if on_fate is not None:
                on_fate(one, fate)
    return fates


async def close_published(
    connection: AsyncConnection, consumer: str, *, schema: str | None = DEFAULT_SCHEMA
) -> int:
    """Close dead letters of relays whose event `consumer` has handled since; returns how many.

    The event reached its topic, so its outbox row was requeued. `consumer` must keep its inbox
    beside the dead letters and read every topic they come from. In the caller's transaction.
    """
    tables = tables_in(schema)
    table, inbox = tables.dead_letter, tables.inbox
    handled = exists().where(inbox.c.event_id == table.c.event_id, inbox.c.consumer == consumer)
    query = (
        select(table.c.id)
        .where(
            table.c.state == OPEN,
            table.c.refused_by.startswith(RELAY_PREFIX, autoescape=True),
            table.c.origin_offset.is_(None),
            handled,
        )
        .with_for_update(of=table, skip_locked=True)
    )
    found = list((await connection.execute(query)).scalars())
    await _close(connection, tables, found, REPLAYED, consumer, "published by its outbox")
    return len(found)


async def decisions(
    connection: AsyncConnection, letter: int, *, schema: str | None = DEFAULT_SCHEMA
) -> list[Decision]:
    """List what was decided about a dead letter, the oldest first."""
    table = tables_in(schema).dead_letter_decision
    found = await connection.execute(
        select(
            table.c.letter,
            table.c.decision,
            table.c.decided_by,
            table.c.reason,
            table.c.decided_at,
        )
        .where(table.c.letter == letter)
        .order_by(table.c.id)
    )
    return [Decision(**row) for row in found.mappings()]


async def _replay_one(
    connection: AsyncConnection,
    producer: DeadLetterProducer,
    letter: int,
    options: ReplayOptions,
    tables: OutboxTables,
    pace: "_Pace",
) -> Fate:
    table = tables.dead_letter
    row = (await _rows(connection, table, [letter], lock=True)).get(letter)
    refusal = _fate(row, options)
    if row is None or refusal is not None:
        return refusal or Fate.UNKNOWN
    bytes_of = await connection.execute(
        select(table.c.payload, table.c.headers).where(table.c.id == letter)
    )
    payload, headers = bytes_of.one()
    await pace.wait()
    await producer.send(
        row["origin_topic"], row["key"], payload, original_headers(unpack_any_headers(headers))
    )
    await _close(connection, tables, [letter], REPLAYED, options.by, None)
    return Fate.REPLAYED


async def _rows(
    connection: AsyncConnection, table: Table, ids: Sequence[int], *, lock: bool = False
) -> dict[int, RowMapping]:
    c = table.c
    query = (
        select(
            c.id,
            c.state,
            c.key,
            c.event_id,
            c.refused_by,
            c.origin_topic,
            c.origin_offset,
            func.coalesce(c.first_failed_at, c.recorded_at).label("failed_at"),
            func.now().label("now"),
        )
        .where(c.id == func.any(list(ids)))
        .order_by(c.id)
    )
    if lock:
        query = query.with_for_update()
    return {row["id"]: row for row in (await connection.execute(query)).mappings()}


async def _close(
    connection: AsyncConnection,
    tables: OutboxTables,
    ids: Sequence[int],
    state: State,
    by: str,
    reason: str | None,
) -> None:
    if not ids:
        return
    table, log = tables.dead_letter, tables.dead_letter_decision
    here = table.c.id == func.any(list(ids))
    values: list[Any] = [
        table.c.id,
        table.c.topic,
        table.c.partition,
        table.c.offset,
        table.c.event_id,
        literal(state).label("decision"),
        literal(by).label("decided_by"),
        literal(reason, log.c.reason.type).label("reason"),
    ]
    names = ["letter", "topic", "partition", "offset", "event_id"]
    names += ["decision", "decided_by", "reason"]
    await connection.execute(insert(log).from_select(names, select(*values).where(here)))
    await connection.execute(
        update(table).where(here).values(state=state, state_changed_at=func.clock_timestamp())
    )


def _closed(row: RowMapping | None) -> Fate | None:
    if row is None:
        return Fate.UNKNOWN
    if row["state"] == REPLAYED:
        return Fate.REPLAYED_BEFORE
    return None if row["state"] == OPEN else Fate.DISCARDED_BEFORE


def _fate(row: RowMapping | None, options: ReplayOptions) -> Fate | None:
    """Say why a dead letter is not sent back; None if it is."""
    closed = _closed(row)
    if row is None or closed is not None:
        return closed
    origin = row["origin_topic"]
    # The origin stands in the record's headers, which anybody may have written.
    if origin is None or (options.origins is not None and origin not in options.origins):
        return Fate.WITHOUT_ORIGIN
    if not options.from_outbox_too and refused_by_relay(row["refused_by"], row["origin_offset"]):
        return Fate.IN_OUTBOX
    if options.inbox_keeps is not None and _happened(row) < row["now"] - options.inbox_keeps:
        return Fate.TOO_OLD
    return None


def _happened(row: RowMapping) -> datetime:
    event_id: UUID | None = row["event_id"]
    failed_at: datetime = row["failed_at"]
    if event_id is None or event_id.version != _UUID7:
        return failed_at
    return min(failed_at, BY_UUID7.moment(str(event_id)))


def _chunks(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


class _Pace:
    """Lets through at most so many a second, evenly."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 0.0 if per_second is None else 1 / per_second
        self._next = 0.0

    async def wait(self) -> None:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + self._gap
