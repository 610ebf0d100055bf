"""Rows that the broker refuses: buried, visible, in nobody's way, and brought back."""

from dataclasses import replace
from datetime import datetime
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message, ReorderError, TopicSpec, ensure_topics, requeue
from lethe_outbox.operations.requeuing import refused, status
from lethe_outbox.relay.producer import BrokenError, Producer
from lethe_outbox.schema import Status
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge
from tests.support.outbox_world import (
    OUTBOX,
    QUICK,
    append,
    buried,
    drained,
    events,
    key_in_lane,
    problems,
    read_topics,
    running,
    statuses,
    stored,
)
from tests.support.poison import SMALL, make_dlt, too_large
from tests.support.topics import read_raw
from tests.support.waiting import until


@pytest.fixture
async def name(topic: TopicFactory) -> str:
    """A topic of small records, without a dead-letter topic."""
    return await topic(config=SMALL)


@pytest.fixture
async def with_dlt(name: str, kafka: str) -> str:
    """The same, with its dead-letter topic."""
    await make_dlt(kafka, name)
    return name


async def test_a_row_too_large_goes_to_the_dead_letter_topic_and_its_key_goes_on(
    engine: AsyncEngine, database_url: str, kafka: str, with_dlt: str
) -> None:
    name = with_dlt
    keys = [key_in_lane(3, 0), key_in_lane(3, 1), key_in_lane(4)]
    before, after = events(name, keys, 10), events(name, keys, 10)
    dead = too_large(name, keys[0])
    await append(engine, *before, dead, *after)
    async with running(database_url, kafka) as relay:
        await drained(engine)
        assert relay.value("relay_dead_lettered_total", topic=name) == 1
        assert relay.value("relay_paused") == 0
        await until(lambda: relay.value("outbox_rows", status="dead_lettered") == 1)
        await until(lambda: relay.value("outbox_rows", status="pending") == 0)

    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []
    (letter,) = await read_raw(kafka, [f"{name}.DLT"])
    headers = {header: value.decode() for header, value in letter.headers}
    assert (letter.key.decode(), letter.value) == (dead.key, dead.payload)
    assert headers["ce_id"] == str(dead.event_id)
    assert headers["ce_type"] == "x"
    assert headers["error-reason"] == "too_large"
    assert headers["error-class"] == "MessageSizeTooLargeError"
    assert headers["origin-topic"] == name
    assert datetime.fromisoformat(headers["error-first-at"]).tzinfo is not None
    async with engine.connect() as connection:
        table = OUTBOX.outbox
        columns = (table.c.attempts, table.c.dlt_attempts, table.c.last_error)
        row = await connection.execute(select(*columns).where(table.c.status == 2))
        assert row.one() == (1, 0, "too_large")


async def test_a_dead_letter_tells_of_its_own_refusal_alone_whatever_headers_its_event_had(
    engine: AsyncEngine, database_url: str, kafka: str, with_dlt: str
) -> None:
    """One made of a consumer's dead letter would count as published, and be sent out of order."""
    name = with_dlt
    headers = (("origin-offset", b"7"), ("error-reason", b"older"), ("theirs", b"x"))
    await append(engine, replace(too_large(name, key_in_lane(3)), headers=headers))
    async with running(database_url, kafka):
        await drained(engine)
    (letter,) = await read_raw(kafka, [f"{name}.DLT"])
    names = [header for header, _ in letter.headers]
    assert len(names) == len(set(names))
    assert "origin-offset" not in names
    told = dict(letter.headers)
    assert (told["error-reason"], told["theirs"]) == (b"too_large", b"x")


@pytest.mark.parametrize("place", ["first", "middle", "last"])
async def test_a_poison_row_hurts_only_itself_wherever_it_stands(
    engine: AsyncEngine, database_url: str, kafka: str, with_dlt: str, place: str
) -> None:
    name = with_dlt
    key = key_in_lane(5)
    batch = events(name, [key], 30)
    batch.insert({"first": 0, "middle": 15, "last": 30}[place], too_large(name, key))
    await append(engine, *batch)
    async with running(database_url, kafka):
        await drained(engine)
    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []
    assert (await statuses(engine)).count(Status.DEAD_LETTERED) == 1


async def test_good_rows_that_are_too_large_together_are_all_published(
    engine: AsyncEngine, database_url: str, kafka: str, with_dlt: str
) -> None:
    name = with_dlt
    key = key_in_lane(6)
    await append(engine, *events(name, [key], 60, size=300))
    async with running(database_url, kafka):
        await drained(engine)
        await append(engine, *events(name, [key], 60, size=300))
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []
    assert set(await statuses(engine)) == {Status.SENT}


async def test_a_batch_may_be_set_larger_than_the_largest_record(
    engine: AsyncEngine, database_url: str, kafka: str, name: str
) -> None:
    key = key_in_lane(6)
    await append(engine, *events(name, [key], 60, size=300))
    async with running(database_url, kafka, replace(QUICK, largest_record_bytes=1000)):
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []
    assert set(await statuses(engine)) == {Status.SENT}


async def test_a_dead_letter_topic_that_refuses_leaves_the_row_dlt_failed_and_others_go_on(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = [key_in_lane(7, 0), key_in_lane(7, 1)]
    await append(engine, too_large(name, keys[0]), *events(name, keys, 5))
    async with running(database_url, kafka) as relay:
        await drained(engine)
        assert relay.value("relay_dlt_failed_total", topic=name) == 1
        await until(lambda: relay.value("outbox_rows", status="dlt_failed") == 1)

    assert await problems(engine, kafka, [name]) == []
    assert (await statuses(engine)).count(Status.DLT_FAILED) == 1
    assert any(record.levelname == "CRITICAL" for record in caplog.records)
    assert keys[0] not in caplog.text
    (row,) = await refused(engine)
    assert (row.status, row.reason, row.held) == (Status.DLT_FAILED, "too_large", False)
    async with engine.begin() as connection:
        assert await connection.scalar(text("select max(dlt_attempts) from lethe.outbox")) == 1
        with pytest.raises(ReorderError):
            await requeue(connection)


@pytest.mark.parametrize("late", [False, True])
async def test_a_dead_letter_that_is_given_up_leaves_no_broker_away(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    late: bool,
) -> None:
    """Nothing tries any more what failed, so nothing but silence says that all is well.

    If it was late, all of its tries were those of producers that are gone, and the shared one never
    failed: none is left that could tell that it has been calm for long.
    """

    async def send(*_: object) -> None:
        raise BrokenError("TimeoutError", late=late)

    monkeypatch.setattr(Producer, "send", send)
    await append(engine, too_large(name, key_in_lane(7)))
    async with running(database_url, kafka, replace(QUICK, publish_seconds=1.0)) as relay:
        await until(lambda: relay.value("relay_dlt_failed_total", topic=name) == 1)
        assert relay.value("relay_paused") == 1
        await until(lambda: relay.value("relay_paused") == 0)
        assert relay.states[-1] == ("kafka", "ok", "")


async def test_a_requeued_row_is_published_once_the_cause_is_mended(
    engine: AsyncEngine, database_url: str, kafka: str, name: str
) -> None:
    key = key_in_lane(7)
    await append(engine, too_large(name, key), *events(name, [key], 3))
    async with running(database_url, kafka) as relay:
        await until(lambda: relay.value("relay_dlt_failed_total", topic=name) == 1)
        await make_dlt(kafka, name)
        async with engine.begin() as connection:
            assert await requeue(connection, accept_reorder=True) == 1
        await until(lambda: relay.value("relay_dead_lettered_total", topic=name) == 1)
    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []
    assert (await status(engine)).dlt_failed == 0


async def test_a_topic_that_holds_back_waits_behind_its_dead_letter_until_it_is_requeued(
    engine: AsyncEngine, database_url: str, kafka: str, name: str
) -> None:
    held, free = key_in_lane(8, 0), key_in_lane(8, 1)
    settings = replace(QUICK, hold_back_topics=frozenset({name}))
    await append(engine, too_large(name, held), *events(name, [held, free], 10))
    async with running(database_url, kafka, settings) as relay:
        await until(lambda: relay.value("relay_published_total", topic=name) == 10)
        await append(engine, *events(name, [held, free], 2))
        await until(lambda: relay.value("relay_published_total", topic=name) == 12)
        await until(lambda: relay.value("outbox_rows", status="pending") == 12)
        assert {record.key for record in await read_topics(kafka, [name])} == {free}
    # Another relay learns of it from the database.
    async with running(database_url, kafka, settings) as relay:
        await append(engine, *events(name, [held, free], 1))
        await until(lambda: relay.value("relay_published_total", topic=name) == 1)
        async with engine.begin() as connection:
            await connection.execute(
                text("update lethe.outbox set payload = 'small enough' where id = 1")
            )
            assert await requeue(connection) == 1
        await drained(engine)
    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert len(records) == 1 + 2 * 13


async def test_an_unknown_topic_is_refused_after_a_while_and_others_go_on(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    key = key_in_lane(9)
    await append(engine, Message("nobody.made.this", key, b"1"), *events(name, [key], 5))
    async with running(database_url, kafka):
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []
    (row,) = await refused(engine)
    assert (row.status, row.reason) == (Status.DLT_FAILED, "unknown_topic")


async def test_rows_written_by_hand_without_legal_topic_or_headers_are_refused_alone(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    key = key_in_lane(10)
    insert = text(
        "insert into lethe.outbox (event_id, topic, key, bucket, headers, payload)"
        " values (gen_random_uuid(), :topic, :key, 10, :headers, 'p')"
    )
    async with engine.begin() as connection:
        for illegal, headers in (("a b", b"ce_id\x001"), (name, b"odd"), ("", b"ce_id\x001")):
            values = {"topic": illegal, "key": key, "headers": headers}
            await connection.execute(insert, values)
    await append(engine, *events(name, [key], 2))
    async with running(database_url, kafka):
        await drained(engine)
    reasons = [row.reason for row in await refused(engine)]
    assert reasons == ["invalid_topic", "malformed_headers", "invalid_topic"]


async def test_an_unknown_topic_that_holds_back_loses_one_row_per_key_to_it(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    lost = f"{name}.unknown"
    key, other = key_in_lane(9, 0), key_in_lane(9, 1)
    settings = replace(QUICK, hold_back_topics=frozenset({lost}))
    await append(engine, *events(lost, [key, other], 3), *events(name, [key], 3))
    async with running(database_url, kafka, settings) as relay:
        await relay.reach("relay_published_total", 3, topic=name)
        await relay.reach("relay_dlt_failed_total", 2, topic=lost)
        await ensure_topics(kafka, [TopicSpec(lost, 16)])
        async with engine.begin() as connection:
            assert await requeue(connection) == 2
        await drained(engine)
    assert await problems(engine, kafka, [name, lost]) == []
    assert set(await statuses(engine)) == {Status.SENT}


async def test_a_key_too_long_for_an_index_is_held_back_and_stops_nobody_else(
    engine: AsyncEngine, database_url: str, kafka: str, name: str
) -> None:
    """PostgreSQL takes no value of some thousand bytes that do not compress into a btree."""
    long = "".join(uuid4().hex for _ in range(300))
    settings = replace(QUICK, hold_back_topics=frozenset({name}))
    await append(engine, too_large(name, long), *events(name, [long, "free"], 2))
    async with running(database_url, kafka, settings) as relay:
        await until(lambda: relay.value("relay_published_total", topic=name) == 2)
        await until(lambda: relay.value("outbox_rows", status="pending") == 2)
    assert {record.key for record in await read_topics(kafka, [name])} == {"free"}
    (dead,) = await buried(engine)
    assert (dead.key, dead.held) == (long, True)
