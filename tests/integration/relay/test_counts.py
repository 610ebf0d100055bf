"""What publishing costs, in counts that do not depend on the machine."""

from collections.abc import Sequence

import pytest
from sqlalchemy import NullPool, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from uuid_utils.compat import uuid7

from lethe_outbox import Message, RelaySettings, bucket_of, status
from lethe_outbox.relay.lane import Lane
from lethe_outbox.relay.lease_storage import LeaseStorage, Terms
from lethe_outbox.relay.session import Session
from lethe_outbox.relay.storage import RelayStorage
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge, repetitions
from tests.support.outbox_world import (
    Running,
    append,
    drained,
    events,
    key_in_lane,
    read_topics,
    running,
    stored,
)
from tests.support.topics import read_raw
from tests.support.waiting import until

ROWS = 40_000
KEYS = 5_000
_OWNER = uuid7()
QUIET = RelaySettings(sample_seconds=3600, janitor_seconds=0)
"""Nothing but publishing."""


async def fill(engine: AsyncEngine, topic: str) -> None:
    """Commit a backlog whose keys come in turn, and let the table settle."""
    keys = [{"n": n, "bucket": bucket_of(f"k{n}")} for n in range(KEYS)]
    async with engine.begin() as connection:
        await connection.execute(text("create temp table keys (n int primary key, bucket int2)"))
        await connection.execute(text("insert into keys values (:n, :bucket)"), keys)
        await connection.execute(
            text(
                "insert into lethe.outbox (event_id, topic, key, bucket, payload, headers)"
                " select uuidv7(), :topic, 'k' || keys.n, keys.bucket,"
                " convert_to(lpad(g::text, 300, '0'), 'UTF8'), ''"
                " from generate_series(0, :last) g join keys on keys.n = g % :keys order by g"
            ),
            {"topic": topic, "last": ROWS - 1, "keys": KEYS},
        )
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("vacuum analyze lethe.outbox"))


async def updates(engine: AsyncEngine) -> tuple[int, int]:
    """Rows updated, and those among them that touched no index."""
    async with engine.connect() as connection:
        found = await connection.execute(
            text(
                "select sum(n_tup_upd)::int8, sum(n_tup_hot_upd)::int8 from pg_stat_user_tables"
                " where relid in (select relid from pg_partition_tree('lethe.outbox'))"
            )
        )
        row = found.one()
    return row[0], row[1]


async def position(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        found = await connection.scalar(text("select pg_current_wal_lsn() - '0/0'::pg_lsn"))
    return int(found or 0)


async def whole_pages(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        return str(await connection.scalar(text("show full_page_writes"))) == "on"


def count(relay: Running, step: str) -> float:
    return relay.value("relay_step_seconds_count", step=step) or 0


async def test_a_backlog_costs_few_statements_requests_and_bytes(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    await fill(engine, await topic())
    before = await position(engine)
    async with running(database_url, kafka, QUIET) as relay:
        await relay.reach("relay_acknowledged_total", ROWS, within=60)
        written = await position(engine) - before
        thousands = ROWS / 1000
        statements = {step: count(relay, step) / thousands for step in ("look", "fetch")}
        marks = count(relay, "acknowledge") / thousands
        batches = (relay.value("relay_publish_seconds_count") or 0) / thousands

    assert sum(statements.values()) < 4, statements
    assert marks < 4
    assert batches < 4
    # A page's first change after a checkpoint is written whole, where that is not switched off.
    assert written / ROWS < (900 if await whole_pages(engine) else 250)

    async def told() -> bool:
        # Statistics are told when the sessions of the relay have ended.
        return (await updates(engine))[0] >= ROWS

    await until(told)
    rows, heap_only = await updates(engine)
    assert rows == ROWS
    assert heap_only / rows >= 0.95


async def test_while_an_outbox_is_looked_at_marks_find_room_on_their_page(
    engine: AsyncEngine, database_url: str
) -> None:
    """A view that is kept keeps what died after it, and a few such versions fill a page."""
    await append(engine, *events("t", ["k"], 12, size=300))
    ids = [one.id for one in await stored(engine)]
    marked: list[int] = []
    mark = text("update lethe.outbox set status = 1, sent_at = now() where id = :id")
    marker = create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def after_each_statement(*_: object) -> None:
        if len(marked) < len(ids):
            with marker.connect() as connection:
                connection.execute(mark, {"id": ids[len(marked)]})
            marked.append(ids[len(marked)])

    kept = {"options": "-c default_transaction_isolation=repeatable\\ read"}
    looking = create_async_engine(database_url, poolclass=NullPool, connect_args=kept)
    event.listen(looking.sync_engine, "after_cursor_execute", after_each_statement)
    await status(looking)
    assert marked == ids

    async def told() -> tuple[int, int] | None:
        found = await updates(engine)
        return found if found[0] >= len(ids) else None

    assert await until(told) == (len(ids), len(ids))


async def test_an_idle_relay_only_looks(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    await append(engine, *events(name, ["a", "b"], 2))
    async with running(database_url, kafka, QUIET) as relay:
        await drained(engine)
        await relay.reach("relay_acknowledged_total", 4)
        # A fetch that was on its way may end meanwhile.
        await looks(relay, 2)
        fetches, marks = count(relay, "fetch"), count(relay, "acknowledge")
        await looks(relay, 4)
        assert (count(relay, "fetch"), count(relay, "acknowledge")) == (fetches, marks)
        await append(engine, *events(name, ["a"], 1))
        await relay.reach("relay_acknowledged_total", 5)


async def looks(relay: Running, more: int) -> None:
    goal = count(relay, "look") + more
    await until(lambda: count(relay, "look") >= goal, what=f"{more} more looks")


async def test_large_rows_wait_in_the_database_until_it_is_their_turn(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    keys = [key_in_lane(lane, number) for lane in range(16) for number in range(4)]
    # Small and large ones of one key in turn, so that their order is tried, too.
    for size in (100, 200_000, 10, 300_000):
        await append(engine, *events(name, keys, 1, size=size))
    tight = RelaySettings(waiting_bytes=100_000, chunk_bytes=100_000)
    async with running(database_url, kafka, tight):
        await drained(engine, within=60)
    records = await read_topics(kafka, [name])
    assert len(records) == 4 * len(keys)
    assert judge(await stored(engine), records) == []
    assert repetitions(records) == 0


class Reader:
    """A relay's view of the database, without a relay."""

    def __init__(self, session: Session) -> None:
        self.storage = RelayStorage(session, "lethe", _OWNER, 16)
        self.leases = LeaseStorage(self.storage, "tested", Terms(30, watch_backends=True))

    async def lanes(self) -> list[Lane]:
        await self.storage.prepare()
        await self.leases.register()
        claimed = await self.leases.claim(16, [])
        return [Lane.claimed(number, leases, 0.0, 2) for number, leases in sorted(claimed.items())]


async def test_a_fetch_leaves_large_payloads_and_a_reading_of_them_has_an_end(
    engine: AsyncEngine, database_url: str
) -> None:
    key = key_in_lane(3)
    sizes: Sequence[int] = (10, 400_000, 8192, 8193, 400_000)
    for size in sizes:
        await append(engine, Message("t", key, b"x" * size))
    async with Session(database_url, "reader") as session:
        reader = Reader(session)
        lane = (await reader.lanes())[3]
        limits, ends = dict.fromkeys(lane.buckets, 10), lane.ends(1000)
        rows = await reader.storage.fetch([lane], limits, ends)
        lengths = [row[5] and len(row[5]) for row in rows]
        large = [row[0] for row in rows if row[5] is None]
        first = await reader.storage.payloads(large, 1)
        two = await reader.storage.payloads(large, 400_100)  # with the first one's headers
    assert lengths == [10, None, 8192, None, None]
    assert {number: len(payload) for number, (payload, _) in first.items()} == {large[0]: 400_000}
    assert [len(payload) for payload, _ in two.values()] == [400_000, 8193]


async def test_a_fetch_leaves_large_headers_and_they_count_where_they_are_read(
    engine: AsyncEngine, database_url: str
) -> None:
    key = key_in_lane(3)
    for size in (10, 8000, 400_000, 400_000):
        await append(engine, Message("t", key, b"x", (("h", b"y" * size),)))
    async with Session(database_url, "reader") as session:
        reader = Reader(session)
        lane = (await reader.lanes())[3]
        rows = await reader.storage.fetch([lane], dict.fromkeys(lane.buckets, 10), lane.ends(1000))
        large = [row[0] for row in rows if row[6] is None]
        loaded = await reader.storage.payloads(large, 1)
    assert [row[0] for row in rows if row[5] is None] == large == [row[0] for row in rows[2:]]
    lane.offer(rows)
    assert 8000 < lane.sizes[0] < 9000
    [(payload, headers)] = loaded.values()
    assert payload == b"x"
    assert len(headers) > 400_000


async def test_rows_with_large_headers_are_published_with_them(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    for size in (10, 300_000, 20, 400_000):
        await append(engine, Message(name, "k", b"x", (("h", b"y" * size),)))
    async with running(database_url, kafka):
        await drained(engine, within=60)
    records = await read_raw(kafka, [name])
    assert [len(dict(one.headers)["h"]) for one in records] == [10, 300_000, 20, 400_000]


async def read_by_index(engine: AsyncEngine) -> dict[str, int]:
    """Entries of the outbox's indexes that were read, by the index's columns; and of the table."""
    query = (
        "select case when indexrelname like '%bucket%' then 'bucket' else 'id' end,"
        " sum(idx_tup_read)::int8 from pg_stat_user_indexes"
        " where relid in (select relid from pg_partition_tree('lethe.outbox')) group by 1"
        " union all select 'table', sum(seq_tup_read)::int8 from pg_stat_user_tables"
        " where relid in (select relid from pg_partition_tree('lethe.outbox'))"
    )
    async with engine.connect() as connection:
        return {row[0]: row[1] for row in await connection.execute(text(query))}


async def test_what_came_last_is_read_without_reading_anything_else(
    engine: AsyncEngine, database_url: str, topic: TopicFactory
) -> None:
    await fill(engine, await topic())
    before = await read_by_index(engine)
    async with Session(database_url, "reader") as session:
        reader = Reader(session)
        lanes = await reader.lanes()
        last_id, _, _ = await reader.storage.look()
        rows = await reader.storage.fetch_fresh(lanes, last_id - 7, last_id)
    assert [row[0] for row in rows] == list(range(last_id - 6, last_id + 1))

    async def told() -> dict[str, int]:
        found = await read_by_index(engine)
        return found if found["id"] > before["id"] else {}

    after = await until(told, what="statistics of the session that has ended")
    assert {name: read - before[name] for name, read in after.items()} == {
        "id": 7,
        "bucket": 0,
        "table": 0,
    }


@pytest.mark.parametrize("lanes", [16, 4])
async def test_a_key_that_is_alone_is_read_in_large_steps(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, lanes: int
) -> None:
    name = await topic()
    await append(engine, *events(name, ["huge"], 6000))
    settings = RelaySettings(lanes=lanes, sample_seconds=3600, janitor_seconds=0)
    async with running(database_url, kafka, settings) as relay:
        await relay.reach("relay_acknowledged_total", 6000, within=60)
        assert count(relay, "fetch") < 40
    assert judge(await stored(engine), await read_topics(kafka, [name])) == []
