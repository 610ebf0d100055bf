"""Making and dropping partitions on a real table."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_outbox.partitions import storage as partition_storage
from lethe_outbox.partitions.monthly import BY_TIME, BY_UUID7, Partition, first_uuid7
from lethe_outbox.partitions.storage import Outcome, PartitionedTable, drop, make_ahead, partitions
from tests.support.waiting import until

LAY = """
create schema "Odd one";
create table "Odd one".t (id bigint generated always as identity, created_at timestamptz not null,
    gone int, v text not null default 'd', primary key (id, created_at))
    partition by range (created_at);
create index on "Odd one".t (v, id);
create table "Odd one".t_default partition of "Odd one".t default with (fillfactor = 85);
alter table "Odd one".t drop column gone;
create table "Odd one".u (event_id uuid primary key) partition by range (event_id);
create table "Odd one".u_default partition of "Odd one".u default;
"""
NOW = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)
T = PartitionedTable("Odd one", "t", BY_TIME, lock_seconds=0.05)
U = PartitionedTable("Odd one", "u", BY_UUID7, lock_seconds=0.05)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    found = create_async_engine(database_url)
    async with found.begin() as connection:
        for statement in LAY.split(";\n")[:-1]:
            await connection.execute(text(statement))
    yield found
    await found.dispose()


async def put(engine: AsyncEngine, *moments: datetime) -> None:
    async with engine.begin() as connection:
        for moment in moments:
            await connection.execute(
                text('insert into "Odd one".t (created_at) values (:m)'), {"m": moment}
            )


async def places(engine: AsyncEngine) -> list[tuple[int, str]]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text(
                "select id, (select relname from pg_class c where c.oid = t.tableoid)"
                ' from "Odd one".t t order by id'
            )
        )
        return [(row[0], row[1]) for row in rows]


async def names(engine: AsyncEngine, table: PartitionedTable = T) -> list[str]:
    return [one.name for one in await partitions(engine, table)]


def yes(connection: Connection, partition: Partition) -> bool:
    del connection, partition
    return True


async def test_months_are_made_ahead_once_and_look_like_their_siblings(
    engine: AsyncEngine,
) -> None:
    assert await make_ahead(engine, T, NOW, 2) == {
        "t from 2026-11-01": Outcome.DONE,
        "t from 2026-12-01": Outcome.DONE,
        "t from 2027-01-01": Outcome.DONE,
    }
    assert await make_ahead(engine, T, NOW, 2) == {}
    assert await names(engine) == ["t_2026_11", "t_2026_12", "t_2027_01", "t_default"]
    async with engine.connect() as connection:
        options, indexes, valid = (
            await connection.execute(
                text(
                    "select c.reloptions, count(i.indexrelid), bool_and(i.indisvalid)"
                    " from pg_class c join pg_index i on i.indrelid = c.oid"
                    """ where c.oid = '"Odd one".t_2026_12'::regclass group by 1"""
                )
            )
        ).one()
    assert (options, indexes, valid) == (["fillfactor=85"], 2, True)
    await put(engine, NOW, NOW + timedelta(days=60))
    assert await places(engine) == [(1, "t_2026_11"), (2, "t_2027_01")]


async def test_a_uuid7_finds_the_month_it_carries(engine: AsyncEngine) -> None:
    await make_ahead(engine, U, NOW, 0)
    async with engine.begin() as connection:
        where = await connection.scalar(
            text('insert into "Odd one".u values (:u) returning tableoid::regclass::text'),
            {"u": first_uuid7(NOW)},
        )
        foreign = await connection.scalar(
            text('insert into "Odd one".u values (:u) returning tableoid::regclass::text'),
            {"u": uuid4()},
        )
    assert where == '"Odd one".u_2026_11'
    assert foreign == '"Odd one".u_default'


async def test_rows_of_the_default_partition_move_where_they_belong(engine: AsyncEngine) -> None:
    await put(engine, NOW, NOW - timedelta(days=90), NOW + timedelta(days=11))
    seen: list[tuple[str, str]] = []
    await make_ahead(
        engine, T, NOW, 1, lambda _connection, schema, name: seen.append((schema, name))
    )
    assert await places(engine) == [(1, "t_2026_11"), (2, "t_default"), (3, "t_2026_12")]
    assert seen == [("Odd one", "t_2026_11"), ("Odd one", "t_2026_12")]


async def test_a_month_made_late_takes_over_what_was_written_while_it_waited(
    engine: AsyncEngine, database_url: str
) -> None:
    """Also where the database's default isolation would show it the rows of before."""
    options = {"options": r"-c default_transaction_isolation=repeatable\ read"}
    strict = create_async_engine(database_url, connect_args=options)
    patient = replace(T, lock_seconds=20)
    async with engine.connect() as late:
        await late.execute(text('insert into "Odd one".t (created_at) values (:m)'), {"m": NOW})
        making = asyncio.create_task(make_ahead(strict, patient, NOW, 0))
        await until(lambda: _somebody_waits(engine), what="a month that waits")
        await late.commit()
    assert await making == {"t from 2026-11-01": Outcome.DONE}
    await strict.dispose()
    assert await places(engine) == [(1, "t_2026_11")]


async def _somebody_waits(engine: AsyncEngine) -> bool:
    query = (
        "select exists (select from pg_locks where not granted and database ="
        " (select oid from pg_database where datname = current_database()))"
    )
    async with engine.connect() as connection:
        return bool(await connection.scalar(text(query)))


async def test_a_full_default_partition_keeps_its_rows_and_the_next_range_begins_later(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_storage, "MOST_MOVED_ROWS", 2)
    await put(engine, NOW, NOW, NOW)
    assert await make_ahead(engine, T, NOW, 0) == {"t from 2026-11-01": Outcome.DONE}
    assert await names(engine) == ["t_2026_11_22", "t_default"]
    assert {place for _, place in await places(engine)} == {"t_default"}
    # What is left of the month is in the past: it stays with the default partition.
    assert await make_ahead(engine, T, NOW, 0) == {"t from 2026-11-01": Outcome.REFUSED}


async def test_one_at_a_time(engine: AsyncEngine) -> None:
    async with engine.connect() as other:
        await other.execute(
            text("select pg_advisory_xact_lock(hashtextextended(:what, 0))"),
            {"what": 'partitions of "Odd one"."t"'},
        )
        assert await make_ahead(engine, T, NOW, 0) == {"t from 2026-11-01": Outcome.BUSY}
        assert await make_ahead(engine, U, NOW, 0) == {"u from 2026-11-01": Outcome.DONE}
    assert await make_ahead(engine, T, NOW, 0) == {"t from 2026-11-01": Outcome.DONE}


async def test_writers_of_other_partitions_do_not_stop_the_making(engine: AsyncEngine) -> None:
    await make_ahead(engine, T, NOW, 0)
    async with engine.connect() as writer:
        await writer.execute(text('insert into "Odd one".t (created_at) values (:m)'), {"m": NOW})
        assert await make_ahead(engine, T, NOW, 1) == {"t from 2026-12-01": Outcome.DONE}


async def test_a_month_that_has_begun_is_made_only_between_writers(engine: AsyncEngine) -> None:
    """A row that is on its way into the default partition would be refused."""
    async with engine.connect() as writer:
        await writer.execute(text('insert into "Odd one".t (created_at) values (:m)'), {"m": NOW})
        assert await make_ahead(engine, T, NOW, 1) == {
            "t from 2026-11-01": Outcome.BUSY,
            "t from 2026-12-01": Outcome.BUSY,
        }
        await writer.commit()
    assert set((await make_ahead(engine, T, NOW, 1)).values()) == {Outcome.DONE}
    assert await places(engine) == [(1, "t_2026_11")]


async def october(engine: AsyncEngine) -> Partition:
    await make_ahead(engine, T, NOW - timedelta(days=30), 1)
    return next(one for one in await partitions(engine, T) if one.name == "t_2026_10")


async def test_a_drop_asks_first_and_saves_what_must_outlive_it(engine: AsyncEngine) -> None:
    old = await october(engine)
    october_15 = NOW - timedelta(days=30)
    await put(engine, NOW, october_15, october_15)

    def save(connection: Connection, partition: Partition) -> None:
        assert partition.name == "t_2026_10"
        connection.exec_driver_sql(
            'insert into "Odd one".t overriding system value select * from "Odd one".t_2026_10'
            " where id = 3"
        )

    def fail(connection: Connection, partition: Partition) -> None:
        save(connection, partition)
        raise KeyError("died")

    assert await drop(engine, T, old, lambda *_: False, save) is Outcome.REFUSED
    with pytest.raises(KeyError, match="died"):
        await drop(engine, T, old, yes, fail)
    assert await places(engine) == [(1, "t_2026_11"), (2, "t_2026_10"), (3, "t_2026_10")]
    assert await drop(engine, T, old, yes, save) is Outcome.DONE
    assert await names(engine) == ["t_2026_11", "t_default"]
    assert await places(engine) == [(1, "t_2026_11"), (3, "t_default")]
    assert await drop(engine, T, old, yes, save) is Outcome.DONE


async def test_an_open_writer_puts_the_drop_off_wherever_it_writes(engine: AsyncEngine) -> None:
    old = await october(engine)
    for moment in (NOW, NOW - timedelta(days=30)):
        async with engine.connect() as writer:
            await writer.execute(
                text('insert into "Odd one".t (created_at) values (:m)'), {"m": moment}
            )
            assert await drop(engine, T, old, yes) is Outcome.BUSY
            await writer.rollback()
    assert await drop(engine, T, old, yes) is Outcome.DONE


async def test_a_look_that_takes_too_long_puts_its_drop_off(engine: AsyncEngine) -> None:
    old = await october(engine)

    def slow(connection: Connection, partition: Partition) -> bool:
        connection.exec_driver_sql("select pg_sleep(60)")
        return yes(connection, partition)

    hasty = replace(T, statement_seconds=0.05)
    assert await drop(engine, hasty, old, slow) is Outcome.BUSY
    assert await drop(engine, T, old, yes) is Outcome.DONE


async def test_a_month_that_cannot_be_made_keeps_no_other_one(engine: AsyncEngine) -> None:
    """A row of the default partition breaks a check that was added for new ones only."""
    await put(engine, NOW)
    async with engine.begin() as connection:
        await connection.execute(
            text("alter table \"Odd one\".t add constraint c check (v <> 'd') not valid")
        )
    assert await make_ahead(engine, T, NOW, 1) == {
        "t from 2026-11-01": Outcome.BUSY,
        "t from 2026-12-01": Outcome.DONE,
    }


async def test_the_default_partition_is_never_dropped(engine: AsyncEngine) -> None:
    default = next(one for one in await partitions(engine, T) if one.span is None)
    with pytest.raises(ValueError, match="never dropped"):
        await drop(engine, T, default, yes)
