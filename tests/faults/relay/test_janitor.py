"""Partitions are made and dropped, whoever writes, dies or does the same: nothing is lost."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from lethe_outbox import Message, requeue
from lethe_outbox.operations.purging import Approval, purge
from lethe_outbox.partitions.monthly import Partition
from lethe_outbox.partitions.storage import Outcome, drop, partitions
from lethe_outbox.partitions.upkeep import Upkeep, UpkeepRules
from lethe_outbox.schema import Status
from tests.support import janitor_process
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge
from tests.support.outbox_upkeep import (
    TABLE,
    bury,
    make_month,
    mark_sent,
    months_ago,
    names,
    put,
)
from tests.support.outbox_world import (
    OUTBOX,
    QUICK,
    append_apart,
    drained,
    read_topics,
    running,
    stored,
)
from tests.support.waiting import until

OLD = months_ago(4)
RULES = UpkeepRules(lock_seconds=0.05)
DILIGENT = replace(QUICK, janitor_seconds=0.1, janitor_lock_seconds=0.05)


async def put_old(engine: AsyncEngine, *messages: Message) -> list[int]:
    async with engine.begin() as connection:
        return await put(connection, OLD, *messages)


async def a_month_that_is_over(engine: AsyncEngine, topic: str = "t") -> str:
    """Make a partition with two rows that were sent long ago."""
    name = await make_month(engine, OLD)
    ids = await put_old(engine, Message(topic, "k", b"1"), Message(topic, "k", b"2"))
    await mark_sent(engine, ids, OLD)
    return name


async def make_due(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox_upkeep set done_at = now() - interval '1 day'")
        )


async def waiting(engine: AsyncEngine) -> int:
    """Count who waits for a lock on a table."""
    async with engine.connect() as connection:
        return (
            await connection.scalar(
                text(
                    "select count(*) from pg_locks where not granted and database ="
                    " (select oid from pg_database where datname = current_database())"
                    " or not granted and locktype = 'transactionid'"
                )
            )
            or 0
        )


async def _kept(engine: AsyncEngine) -> bool:
    return not await Upkeep(engine, rules=RULES).due(3600)


async def test_a_writer_that_is_open_across_the_drop_loses_nothing_and_keeps_its_order(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    """Its row belongs into the old partition; its key goes on as soon as it has committed."""
    name = await topic()
    old = await a_month_that_is_over(engine)
    # Those two were published by a relay of the past, to a topic that is gone.
    async with running(database_url, kafka, DILIGENT) as relay, engine.connect() as late:
        await put(late, OLD, Message(name, "late", b"first"))
        await make_due(engine)
        assert (await Upkeep(engine, rules=RULES).run()).dropped == {old: Outcome.BUSY}
        await append_apart(engine, Message(name, "other", b""))
        await relay.reach("relay_published_total", 1, topic=name)
        await late.commit()
        await append_apart(engine, Message(name, "late", b"second"))
        await drained(engine)
        await until(lambda: _kept(engine), what="a janitor of the relay that left nothing undone")
    # Alone again: beside the relay's janitor this one may come second.
    assert (await Upkeep(engine, rules=RULES).run()).dropped == {old: Outcome.REFUSED}
    rows = [row for row in await stored(engine) if row.topic == name]
    assert judge(rows, await read_topics(kafka, [name])) == []
    assert len(rows) == 3


async def test_who_comes_during_the_look_waits_and_then_keeps_its_partition(
    engine: AsyncEngine, database_url: str
) -> None:
    """Between the look and the drop nobody can commit a row that the look did not see."""
    old = await a_month_that_is_over(engine)
    partition = next(one for one in await partitions(engine, TABLE) if one.name == old)
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    came = threading.Event()

    def write() -> None:
        with psycopg.connect(url) as connection:
            came.set()
            connection.execute(
                "insert into lethe.outbox"
                " (event_id, topic, key, bucket, payload, headers, created_at)"
                " values (gen_random_uuid(), 't', 'k', 1, 'p', 'h', %s)",
                (OLD,),
            )

    writer = threading.Thread(target=write)

    def look(connection: Connection, seen: Partition) -> bool:
        assert seen == partition
        writer.start()
        came.wait(20)
        query = text("select count(*) from pg_locks where not granted and relation = :oid")
        while not connection.scalar(query, {"oid": seen.oid}):
            assert writer.is_alive(), "nobody was kept out"
        return True

    assert await drop(engine, TABLE, partition, look) is Outcome.BUSY
    await asyncio.to_thread(writer.join)
    assert [row.status for row in await stored(engine)] == [Status.SENT] * 2 + [Status.PENDING]
    assert (await Upkeep(engine, rules=RULES).run()).dropped == {old: Outcome.REFUSED}


async def test_a_requeue_and_a_drop_at_the_same_moment(engine: AsyncEngine) -> None:
    """Whoever comes first: the event waits to be published, or its dead letter is still there."""
    old = await a_month_that_is_over(engine)
    (number,) = await put_old(engine, Message("t", "k", b"3"))
    await bury(engine, number, Status.DLT_FAILED)
    upkeep = Upkeep(engine, rules=RULES)
    async with engine.connect() as connection:
        assert await requeue(connection, accept_reorder=True) == 1
        assert (await upkeep.run()).dropped == {old: Outcome.BUSY}
        await connection.commit()
    assert (await upkeep.run()).dropped == {old: Outcome.REFUSED}
    await bury(engine, number, Status.DLT_FAILED)
    assert (await upkeep.run()).dropped == {old: Outcome.DONE}
    async with engine.begin() as connection:
        assert await requeue(connection, accept_reorder=True) == 1
    assert [(row.id, row.status) for row in await stored(engine)] == [(number, Status.PENDING)]


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
async def test_a_drop_that_waits_sees_what_it_waited_for_whatever_the_database_s_isolation(
    engine: AsyncEngine, database_url: str, level: str
) -> None:
    old = await a_month_that_is_over(engine)
    escaped = level.replace(" ", r"\ ")
    options = {"options": f"-c default_transaction_isolation={escaped}"}
    strict = create_async_engine(database_url, connect_args=options)
    async with engine.connect() as late:
        await put(late, OLD, Message("t", "k", b"3"))
        dropping = asyncio.create_task(Upkeep(strict, rules=UpkeepRules(lock_seconds=20)).run())
        await until(lambda: waiting(engine), what="a drop that waits")
        await late.commit()
    assert (await dropping).dropped == {old: Outcome.REFUSED}
    await strict.dispose()
    assert [row.status for row in await stored(engine)] == [Status.SENT] * 2 + [Status.PENDING]


async def hold(connection: AsyncConnection, statement: str) -> None:
    await connection.execute(text(statement))


BEFORE_THE_LOOK = "lock table lethe.{old} in row exclusive mode"
BEFORE_THE_DROP = "lock table only lethe.outbox in access share mode"
BEFORE_THE_ATTACHMENT = "lock table lethe.outbox_default in access share mode"
BEFORE_THE_NOTE = "select * from lethe.outbox_upkeep for update"


@pytest.mark.parametrize(
    ("obstacle", "dropped"),
    [
        (BEFORE_THE_ATTACHMENT, False),
        (BEFORE_THE_LOOK, False),
        (BEFORE_THE_DROP, False),
        (BEFORE_THE_NOTE, True),
    ],
    ids=["before-attaching", "before-looking", "before-dropping", "before-noting"],
)
async def test_a_janitor_killed_at_a_step_is_followed_by_one_that_finishes(
    engine: AsyncEngine, database_url: str, tmp_path: Path, obstacle: str, *, dropped: bool
) -> None:
    old = await a_month_that_is_over(engine)
    (dead,) = await put_old(engine, Message("t", "k", b"3"))
    await bury(engine, dead, Status.DLT_FAILED)
    months = sorted(set(await names(engine)) - {old, "outbox_default"})
    if obstacle == BEFORE_THE_ATTACHMENT:
        # This month's partition was never made, and its rows lie in the default one.
        async with engine.begin() as connection:
            await connection.execute(text(f"drop table lethe.{months[0]}"))
    await append_apart(engine, Message("t", "k", b"4"))
    await make_due(engine)
    before = await stored(engine), await names(engine)
    async with engine.connect() as other:
        await hold(other, obstacle.format(old=old))
        janitor = janitor_process.start(database_url, tmp_path / "janitor.log")
        try:
            await until(lambda: waiting(engine), what="a janitor that waits")
        finally:
            janitor.kill()
            await asyncio.to_thread(janitor.wait)
            # Its session notices when it writes next.
            await _end_sessions(engine, other)
        await other.rollback()
    if not dropped:
        assert (await stored(engine), await names(engine)) == before
    upkeep = Upkeep(engine, rules=RULES)
    assert await upkeep.due(3600)
    kept = await upkeep.run()
    assert kept.complete
    assert await names(engine) == [*months, "outbox_default"]
    assert {row.status for row in await stored(engine)} == {Status.PENDING, Status.DLT_FAILED}
    assert len(await stored(engine)) == 2
    assert not await upkeep.due(3600)


async def _end_sessions(engine: AsyncEngine, spared: AsyncConnection) -> None:
    """End the sessions of a killed process, as the server does once it notices."""
    pid = await spared.scalar(text("select pg_backend_pid()"))
    ended = text(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
        " and pid not in (pg_backend_pid(), :spared) and wait_event_type = 'Lock'"
    )
    async with engine.connect() as connection:
        await connection.execute(ended, {"spared": pid})
    await until(lambda: _nobody_waits(engine), what="the end of the killed one's session")


async def _nobody_waits(engine: AsyncEngine) -> bool:
    return not await waiting(engine)


async def test_janitors_at_the_same_time_do_it_once(engine: AsyncEngine) -> None:
    for count in (4, 5, 6):
        moment = months_ago(count)
        await make_month(engine, moment)
        async with engine.begin() as connection:
            ids = await put(connection, moment, *(Message("t", "k", b"") for _ in range(3)))
        await mark_sent(engine, ids[:2], moment)
        await bury(engine, ids[2], Status.DLT_FAILED)
    missing = max(set(await names(engine)) - {"outbox_default"})
    async with engine.begin() as connection:
        await connection.execute(text(f"drop table lethe.{missing}"))
    janitors = [Upkeep(engine, rules=RULES) for _ in range(4)]
    kept = await asyncio.gather(*(janitor.run() for janitor in janitors))
    outcomes = {outcome for one in kept for outcome in one.dropped.values()}
    assert outcomes <= {Outcome.DONE, Outcome.BUSY}
    for _ in range(2):
        await janitors[0].run()
    assert len(await names(engine)) == 4
    assert missing in await names(engine)
    rows = await stored(engine)
    assert [row.status for row in rows] == [Status.DLT_FAILED] * 3
    assert len({row.id for row in rows}) == 3


async def test_dropping_under_load_loses_nothing(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    months = [await make_month(engine, months_ago(count)) for count in range(3, 9)]
    stop = asyncio.Event()

    async def write(writer: int) -> int:
        written = 0
        while not stop.is_set():
            await append_apart(engine, Message(name, f"key-{writer % 3}", b""))
            written += 1
        return written

    async with running(database_url, kafka, DILIGENT):
        writers = [asyncio.create_task(write(writer)) for writer in range(6)]
        await make_due(engine)
        await until(lambda: _none_of(engine, months), what="old partitions that are gone")
        stop.set()
        written = sum(await asyncio.gather(*writers))
        await drained(engine)
    rows = await stored(engine)
    assert len(rows) == written
    assert judge(rows, await read_topics(kafka, [name])) == []


async def test_a_month_that_is_made_late_takes_its_rows_over_under_load(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    """They move while a relay reads, publishes and acknowledges them."""
    name = await topic()
    month = min(await names(engine))
    async with engine.begin() as connection:
        await connection.execute(text(f"drop table lethe.{month}"))
    stop = asyncio.Event()

    async def write(writer: int) -> None:
        while not stop.is_set():
            await append_apart(engine, Message(name, f"key-{writer % 3}", b""))

    # What was handed over when its row moved is found by the sweep and sent once more.
    settings = replace(DILIGENT, sweep_seconds=0.5)
    async with running(database_url, kafka, settings) as relay:
        writers = [asyncio.create_task(write(writer)) for writer in range(6)]
        await relay.reach("relay_published_total", 200, topic=name)
        await make_due(engine)
        await until(lambda: _all_of(engine, [month]), what="the month that was missing")
        published = relay.value("relay_published_total", topic=name) or 0
        await relay.reach("relay_published_total", published + 200, topic=name)
        stop.set()
        await asyncio.gather(*writers)
        await drained(engine)
    assert judge(await stored(engine), await read_topics(kafka, [name])) == []
    async with engine.connect() as connection:
        assert await connection.scalar(text("select count(*) from lethe.outbox_default")) == 0


async def _all_of(engine: AsyncEngine, months: list[str]) -> bool:
    return set(months) <= set(await names(engine))


async def _none_of(engine: AsyncEngine, months: list[str]) -> bool:
    return not set(months) & set(await names(engine))


@pytest.mark.parametrize("way", ["purge", "requeue"])
async def test_a_dead_row_of_a_dropped_partition_still_holds_its_key_and_frees_it(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, way: str
) -> None:
    name = await topic()
    old = await make_month(engine, OLD)
    (number,) = await put_old(engine, Message(name, "held", b"0"))
    await bury(engine, number, Status.DLT_FAILED, held=True)
    await make_due(engine)
    settings = replace(DILIGENT, hold_back_topics=frozenset({name}))
    free: Callable[[AsyncConnection], Awaitable[object]] = _purge if way == "purge" else requeue
    async with running(database_url, kafka, settings) as relay:
        await until(lambda: _none_of(engine, [old]))
        for count in range(5):
            await append_apart(
                engine, Message(name, "held", bytes([count])), Message(name, "free", b"")
            )
        await relay.reach("relay_published_total", 5, topic=name)
        assert {record.key for record in await read_topics(kafka, [name])} == {"free"}
        async with engine.begin() as connection:
            await connection.execute(
                text("update lethe.outbox_dead set died_at = now() - interval '8 days'")
            )
            await free(connection)
        await drained(engine)
        assert relay.value("relay_published_total", topic=name) == (10 if way == "purge" else 11)
    rows = await stored(engine)
    assert judge(rows, await read_topics(kafka, [name])) == []
    async with engine.connect() as connection:
        dead = (await connection.execute(select(OUTBOX.dead.c.id))).all()
        noted = (await connection.execute(select(OUTBOX.purged.c.row_id))).scalars().all()
    assert (dead, noted) == ([], [number] if way == "purge" else [])


async def _purge(connection: AsyncConnection) -> object:
    return await purge(connection, Approval(timedelta(days=7), "somebody"))
