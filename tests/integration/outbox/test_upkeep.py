"""What the janitor makes, drops, and leaves alone."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import TextClause, delete, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from lethe_outbox import Message, ReorderError, requeue
from lethe_outbox.errors import RowGoneError
from lethe_outbox.operations.purging import Approval, purge
from lethe_outbox.partitions.storage import Outcome
from lethe_outbox.partitions.upkeep import Kept, Upkeep, UpkeepRules
from lethe_outbox.schema import Status
from tests.support.outbox_upkeep import bury, make_month, mark_sent, months_ago, names, put
from tests.support.outbox_world import OUTBOX, append, lay, statuses
from tests.support.waiting import until

OLD = months_ago(4)
RULES = UpkeepRules(lock_seconds=0.05)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    lay(database_url)
    found = create_async_engine(database_url)
    yield found
    await found.dispose()


@pytest.fixture
async def old(engine: AsyncEngine) -> str:
    """The partition of a month that is long over."""
    return await make_month(engine, OLD)


@pytest.fixture
def upkeep(engine: AsyncEngine) -> Upkeep:
    return Upkeep(engine, rules=RULES)


async def put_old(engine: AsyncEngine, *messages: Message) -> list[int]:
    async with engine.begin() as connection:
        return await put(connection, OLD, *messages)


async def test_a_fresh_outbox_needs_nothing(engine: AsyncEngine, upkeep: Upkeep) -> None:
    before = await names(engine)
    assert await upkeep.run() == Kept()
    assert await names(engine) == before


async def test_sent_long_ago_is_dropped_and_the_next_months_are_made(
    engine: AsyncEngine, old: str, upkeep: Upkeep
) -> None:
    ids = await put_old(engine, Message("t", "k", b"1"), Message("t", "k", b"2"))
    await mark_sent(engine, ids, OLD)
    await append(engine, Message("t", "k", b"3"))
    async with engine.begin() as connection:
        await connection.execute(
            text(f"drop table lethe.{sorted(set(await names(engine)) - {old})[1]}")
        )
    kept = await upkeep.run()
    assert kept.dropped == {old: Outcome.DONE}
    assert list(kept.made.values()) == [Outcome.DONE]
    assert await statuses(engine) == [Status.PENDING]
    assert await upkeep.run() == Kept()


async def test_one_unsent_row_keeps_its_partition(
    engine: AsyncEngine, old: str, upkeep: Upkeep
) -> None:
    first, second = await put_old(engine, Message("t", "k", b"1"), Message("t", "k", b"2"))
    await mark_sent(engine, [first], OLD)
    assert (await upkeep.run()).dropped == {old: Outcome.REFUSED}
    # Neither does the mark decide that was raised above it by mistake.
    async with engine.begin() as connection:
        await connection.execute(text("update lethe.outbox_bucket set low_water = 1000"))
    assert (await upkeep.run()).dropped == {old: Outcome.REFUSED}
    await mark_sent(engine, [second], OLD)
    assert (await upkeep.run()).dropped == {old: Outcome.DONE}


async def test_what_was_sent_lately_keeps_its_partition_until_it_is_old(
    engine: AsyncEngine, old: str
) -> None:
    (number,) = await put_old(engine, Message("t", "k", b"1"))
    await mark_sent(engine, [number], datetime.now(UTC) - timedelta(days=20))
    upkeep = Upkeep(engine, rules=RULES)
    assert (await upkeep.run()).dropped == {old: Outcome.REFUSED}
    async with engine.begin() as connection:
        # It is not looked through again, for which it would have to be locked.
        await connection.execute(text(f"lock table lethe.{old} in row exclusive mode"))
        assert (await upkeep.run()).dropped == {old: Outcome.REFUSED}
    shorter = UpkeepRules(lock_seconds=0.05, retention_seconds=19 * 86_400)
    upkeep._rules = shorter
    assert (await upkeep.run()).dropped == {old: Outcome.DONE}


async def test_refused_rows_pin_nothing_and_are_not_lost(
    engine: AsyncEngine, old: str, upkeep: Upkeep
) -> None:
    events = [Message("t", f"k{n}", bytes([n]), (("h", b"v"),)) for n in range(3)]
    ids = await put_old(engine, *events)
    await bury(engine, ids[0], Status.DEAD_LETTERED)
    await bury(engine, ids[1], Status.DLT_FAILED, held=True)
    await mark_sent(engine, ids[2:], OLD)
    table = OUTBOX.outbox
    query = select(table).where(table.c.id.in_(ids[:2])).order_by(table.c.id)
    async with engine.connect() as connection:
        before = (await connection.execute(query)).all()
    assert (await upkeep.run()).dropped == {old: Outcome.DONE}
    async with engine.connect() as connection:
        assert (await connection.execute(query)).all() == before
        assert len((await connection.execute(select(table.c.id))).all()) == 2
    # What was published behind them is forgotten with the month, so bringing them back is a choice.
    async with engine.begin() as connection:
        with pytest.raises(ReorderError):
            await requeue(connection, ids[:1])
        assert await requeue(connection, ids[:1], accept_reorder=True) == 1
        assert await requeue(connection) == 1


async def test_a_partition_that_cannot_go_keeps_no_other_one(
    engine: AsyncEngine, old: str, upkeep: Upkeep, caplog: pytest.LogCaptureFixture
) -> None:
    later = await make_month(engine, months_ago(3))
    ids = await put_older(engine, Message("t", "k", b""))
    await mark_sent(engine, ids, OLD)
    async with engine.begin() as connection:
        await connection.execute(text(f"create view lethe.report as select * from lethe.{old}"))  # noqa: S608 - a name of ours
    kept = await upkeep.run()
    assert kept == Kept(dropped={old: Outcome.BUSY, later: Outcome.DONE}, swept=1)
    assert caplog.messages == [f"partition {old} could not be changed (DependentObjectsStillExist)"]
    async with engine.begin() as connection:
        await connection.execute(text("drop view lethe.report"))
    assert (await upkeep.run()).dropped == {old: Outcome.DONE}


async def put_older(engine: AsyncEngine, *messages: Message) -> list[int]:
    """Append of a time before that of `old`: into the default partition."""
    async with engine.begin() as connection:
        return await put(connection, months_ago(6), *messages)


async def test_a_database_that_is_away_is_no_partition_that_is_busy(
    engine: AsyncEngine, old: str, upkeep: Upkeep
) -> None:
    """The rest is not tried partition by partition."""
    ended = text(
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"
        " and datname = current_database()"
    )
    async with engine.connect() as other, engine.connect() as killer:
        await other.execute(text(f"lock table lethe.{old} in row exclusive mode"))
        patient = Upkeep(engine, rules=UpkeepRules(lock_seconds=20))
        running = asyncio.create_task(patient.run())
        await until(lambda: _first(killer, ended), what="a drop that waits")
        with pytest.raises(DBAPIError):
            await running
    assert (await upkeep.run()).dropped == {old: Outcome.DONE}


async def _first(connection: AsyncConnection, query: TextClause) -> bool:
    found = (await connection.execute(query)).first() is not None
    await connection.rollback()
    return found


async def test_old_sent_rows_of_the_default_partition_are_deleted_and_nothing_else(
    engine: AsyncEngine, upkeep: Upkeep
) -> None:
    ids = await put_old(engine, *(Message("t", "k", b"") for _ in range(4)))
    await mark_sent(engine, ids[:1], OLD)
    await mark_sent(engine, ids[1:2], datetime.now(UTC))
    await bury(engine, ids[2], Status.DLT_FAILED)
    kept = await upkeep.run()
    assert (kept.swept, kept.complete) == (1, True)
    assert await statuses(engine) == [Status.SENT, Status.DLT_FAILED, Status.PENDING]


async def test_pending_rows_that_move_make_their_owner_read_again(
    engine: AsyncEngine, upkeep: Upkeep
) -> None:
    message = Message("t", "k", b"1")
    month = min(await names(engine))
    async with engine.begin() as connection:
        await connection.execute(text(f"drop table lethe.{month}"))
        await connection.execute(text("update lethe.outbox_bucket set low_water = 1000"))
    await append(engine, message)
    await upkeep.run()
    assert month in await names(engine)
    bucket = OUTBOX.bucket
    query = select(bucket.c.low_water, bucket.c.rewinds).where(bucket.c.bucket == message.bucket)
    async with engine.connect() as connection:
        assert (await connection.execute(query)).one() == (0, 1)
        where = "select relname from pg_class join lethe.outbox o on o.tableoid = pg_class.oid"
        assert await connection.scalar(text(where)) == month


async def test_it_is_due_again_only_after_a_while_whoever_did_it(
    engine: AsyncEngine, old: str, upkeep: Upkeep
) -> None:
    assert not await upkeep.due(3600)
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox_upkeep set done_at = now() - interval '2 hours'")
        )
    assert await upkeep.due(3600)
    async with engine.connect() as other:
        await other.execute(text(f"lock table lethe.{old} in access share mode"))
        kept = await upkeep.run()
        assert kept.dropped == {old: Outcome.BUSY}
        assert await upkeep.due(3600)
    await upkeep.run()
    assert not await Upkeep(engine, rules=RULES).due(3600)


async def test_a_row_that_is_gone_cannot_be_brought_back_and_is_not_forgotten(
    engine: AsyncEngine,
) -> None:
    first, second = await put_old(engine, Message("t", "k", b"1"), Message("t", "l", b"2"))
    await bury(engine, first, Status.DLT_FAILED, held=True)
    await bury(engine, second, Status.DLT_FAILED, held=True)
    async with engine.begin() as connection:
        await connection.execute(delete(OUTBOX.outbox).where(OUTBOX.outbox.c.id == second))
    async with engine.connect() as connection:
        with pytest.raises(RowGoneError):
            await requeue(connection)
        await connection.rollback()
        assert len((await connection.execute(select(OUTBOX.dead.c.id))).all()) == 2


async def test_two_who_purge_at_once_note_every_event_once(engine: AsyncEngine) -> None:
    ids = await put_old(engine, *(Message("t", f"k{n}", b"") for n in range(20)))
    for number in ids:
        await bury(engine, number, Status.DLT_FAILED, held=True)
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox_dead set died_at = now() - interval '8 days'")
        )

    async def purge_all(name: str) -> list[UUID]:
        async with engine.begin() as connection:
            return await purge(connection, Approval(timedelta(days=7), name))

    removed = await asyncio.gather(purge_all("one"), purge_all("other"))
    assert sorted(map(len, removed)) == [0, 20]
    async with engine.connect() as connection:
        noted = (await connection.execute(select(OUTBOX.purged.c.row_id))).scalars().all()
        assert sorted(noted) == ids
        assert (await connection.execute(select(OUTBOX.outbox.c.id))).all() == []
