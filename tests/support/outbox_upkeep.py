"""An outbox with a past: partitions of months long gone, and rows in them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox import Message
from lethe_outbox.message import pack_headers
from lethe_outbox.partitions.monthly import BY_TIME
from lethe_outbox.partitions.storage import PartitionedTable, partitions
from lethe_outbox.schema import Status
from tests.support.outbox_world import OUTBOX

TABLE = PartitionedTable("lethe", "outbox", BY_TIME)


def months_ago(count: int) -> datetime:
    """Give the middle of the month that many months before this one."""
    now = datetime.now(UTC)
    number = now.year * 12 + now.month - 1 - count
    return datetime(number // 12, number % 12 + 1, 15, tzinfo=UTC)


async def make_month(engine: AsyncEngine, moment: datetime) -> str:
    """Make the partition of a month of the past; gives its name."""
    start = moment.replace(day=1)
    end = (start + timedelta(days=32)).replace(day=1)
    name = f"outbox_{start:%Y_%m}"
    async with engine.begin() as connection:
        await connection.execute(
            text(
                f"create table lethe.{name} partition of lethe.outbox"
                f" for values from ('{start.isoformat()}') to ('{end.isoformat()}')"
            )
        )
    return name


async def put(connection: AsyncConnection, moment: datetime, *messages: Message) -> list[int]:
    """Append as a transaction that began at `moment` would have; gives the ids."""
    table = OUTBOX.outbox
    return [
        (
            await connection.execute(
                insert(table)
                .values(
                    event_id=message.event_id,
                    topic=message.topic,
                    key=message.key,
                    bucket=message.bucket,
                    payload=message.payload,
                    headers=pack_headers(message),
                    created_at=moment,
                )
                .returning(table.c.id)
            )
        ).scalar_one()
        for message in messages
    ]


async def mark_sent(engine: AsyncEngine, ids: Sequence[int], sent_at: datetime) -> None:
    table = OUTBOX.outbox
    async with engine.begin() as connection:
        await connection.execute(
            update(table)
            .where(table.c.id.in_(ids))
            .values(status=int(Status.SENT), sent_at=sent_at)
        )


async def bury(engine: AsyncEngine, number: int, status: Status, *, held: bool = False) -> None:
    """Refuse a row as a relay would."""
    table, dead = OUTBOX.outbox, OUTBOX.dead
    kept = [table.c[name] for name in ("id", "created_at", "event_id", "bucket", "topic", "key")]
    async with engine.begin() as connection:
        await connection.execute(
            update(table).where(table.c.id == number).values(status=int(status))
        )
        row = (await connection.execute(select(*kept).where(table.c.id == number))).one()
        await connection.execute(
            insert(dead).values(**row._asdict(), status=int(status), reason="too_large", held=held)
        )


async def names(engine: AsyncEngine) -> list[str]:
    """Name the partitions of the outbox."""
    return [one.name for one in await partitions(engine, TABLE)]
