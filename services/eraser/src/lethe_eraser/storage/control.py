"""How fresh the eraser's knowledge of holds and cancellations is, and what was set aside unread.

Knowledge of a bucket is fresh while its newest watermark is young and no record that could concern
it lies in quarantine. Both are asked for in the statement that takes a job, and again under the
job's lock before every batch.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.topics import PARTITIONS
from lethe_eraser.domain import RUNNABLE
from lethe_eraser.storage.arrays import one_of
from lethe_eraser.storage.tables import job, quarantine, watermark

HANDLED: Final = "handled"
"""Who released a record from quarantine when it was replayed and could be read after all."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record that could not be handled and that may have said anything of its bucket.

    Attributes:
        topic: where it stands.
        partition: likewise.
        offset: likewise.
        bucket: of its key; None for a record without one, which may concern the whole partition.
        event_id: its own, if it could be read.
        reason: a short code.
    """

    topic: str
    partition: int
    offset: int
    bucket: int | None
    event_id: UUID | None
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record in quarantine and since when."""

    record: SetAside
    set_aside_at: datetime


def is_fresh(bucket: ColumnElement[int], within: timedelta) -> ColumnElement[bool]:
    """Say whether nothing can be stuck that `bucket` should know of, but what is younger.

    A watermark of the future was kept under a clock that was set back since, and says nothing.
    """
    young = exists().where(
        watermark.c.bucket == bucket,
        watermark.c.settled_until > func.now() - literal(within),
        # Kept after this transaction began, a watermark may be younger than now().
        watermark.c.settled_until <= func.clock_timestamp(),
    )
    return and_(young, ~exists().where(_unread(bucket)))


def _unread(bucket: ColumnElement[int]) -> ColumnElement[bool]:
    """Say of a record in quarantine that it may concern `bucket`."""
    return and_(
        quarantine.c.released_at.is_(None),
        or_(
            quarantine.c.bucket == bucket,
            and_(quarantine.c.bucket.is_(None), quarantine.c.partition == bucket % PARTITIONS),
        ),
    )


async def fresh(connection: AsyncConnection, bucket: int, within: timedelta) -> bool:
    """Say the same of one bucket, now."""
    found = await connection.execute(select(is_fresh(literal(bucket), within)))
    return bool(found.scalar_one())


async def save_watermarks(
    connection: AsyncConnection, marks: Iterable[Mapping[int, datetime]]
) -> None:
    """Keep the newest watermark of each bucket, and believe none that speaks of the future.

    A clock that was ahead for a moment would let everything look settled until then. If it was
    this database's own, it let such a one in, and the next takes its place.
    """
    newest: dict[int, datetime] = {}
    for mark in marks:
        for bucket, moment in mark.items():
            newest[bucket] = max(moment, newest.get(bucket, moment))
    if not newest:
        return
    buckets = sorted(newest)
    given = (
        func.unnest(
            literal(buckets, ARRAY(watermark.c.bucket.type)),
            literal([newest[bucket] for bucket in buckets], ARRAY(DateTime(timezone=True))),
        )
        .table_valued("bucket", "settled_until")
        .render_derived()
    )
    new = insert(watermark).from_select(
        ["bucket", "settled_until"],
        select(given.c.bucket, func.least(given.c.settled_until, func.now())),
    )
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=[watermark.c.bucket],
            set_={
                "settled_until": case(
                    (
                        watermark.c.settled_until > func.clock_timestamp(),
                        new.excluded.settled_until,
                    ),
                    else_=func.greatest(watermark.c.settled_until, new.excluded.settled_until),
                ),
                "received_at": func.now(),
            },
        )
    )


async def set_aside(connection: AsyncConnection, record: SetAside) -> None:
    """Put a record into quarantine; the same one twice is there once."""
    await connection.execute(
        insert(quarantine)
        .values(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            bucket=record.bucket,
            event_id=record.event_id,
            reason=record.reason,
        )
        .on_conflict_do_nothing()
    )


async def release_handled(connection: AsyncConnection, event_ids: Collection[UUID]) -> None:
    """Let go of records whose events were handled now, in the transaction that handled them."""
    await connection.execute(
        update(quarantine)
        .where(one_of(quarantine.c.event_id, event_ids), quarantine.c.released_at.is_(None))
        .values(released_at=func.now(), released_by=HANDLED)
    )


async def release(
    connection: AsyncConnection, place: tuple[str, int, int], *, by: str, note: str
) -> bool:
    """Let go of a record that somebody looked at; False if it is not in quarantine."""
    topic, partition, offset = place
    released = await connection.execute(
        update(quarantine)
        .where(
            quarantine.c.topic == topic,
            quarantine.c.partition == partition,
            quarantine.c.offset == offset,
            quarantine.c.released_at.is_(None),
        )
        .values(released_at=func.now(), released_by=by, note=note)
    )
    return released.rowcount > 0


async def count_beside(connection: AsyncConnection, place: tuple[str, int, int]) -> int:
    """Count the records in quarantine that stop what this one stopped, released or not."""
    topic, partition, offset = place
    known = select(quarantine.c.bucket).where(
        quarantine.c.topic == topic,
        quarantine.c.partition == partition,
        quarantine.c.offset == offset,
    )
    bucket = (await connection.execute(known)).scalar_one()
    if bucket is not None:
        return await count_unread(connection, bucket)
    beside = (
        select(func.count())
        .select_from(quarantine)
        .where(quarantine.c.partition == partition, quarantine.c.released_at.is_(None))
    )
    return int((await connection.execute(beside)).scalar_one())


async def quarantined(connection: AsyncConnection) -> Sequence[Quarantined]:
    """List what is in quarantine, the oldest first."""
    rows = await connection.execute(
        select(quarantine)
        .where(quarantine.c.released_at.is_(None))
        .order_by(quarantine.c.set_aside_at, quarantine.c.topic, quarantine.c.offset)
    )
    return [
        Quarantined(
            SetAside(
                row["topic"],
                row["partition"],
                row["offset"],
                row["bucket"],
                row["event_id"],
                row["reason"],
            ),
            row["set_aside_at"],
        )
        for row in rows.mappings()
    ]


async def count_unread(connection: AsyncConnection, bucket: int) -> int:
    """Count the records in quarantine that may concern a bucket, and so stop it."""
    found = select(func.count()).select_from(quarantine).where(_unread(literal(bucket)))
    return int((await connection.execute(found)).scalar_one())


async def count_stale(connection: AsyncConnection, within: timedelta) -> int:
    """Count the jobs that could run but for what may be stuck on its way to them."""
    stale = (
        select(func.count())
        .select_from(job)
        .where(
            job.c.state.in_(RUNNABLE),
            or_(job.c.run_now, job.c.not_before <= func.now()),
            ~is_fresh(job.c.bucket, within),
        )
    )
    return (await connection.execute(stale)).scalar_one()
