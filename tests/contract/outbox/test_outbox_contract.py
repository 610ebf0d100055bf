"""What is promised of an outbox, held to the one in memory and to the one on real servers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox import (
    ConnectionKindError,
    Message,
    MessageError,
    PoisonError,
    Record,
    ReorderError,
    Status,
)
from lethe_outbox.message import bucket_of
from tests.contract.outbox.worlds import ATTEMPTS, PARTITIONS, MemoryWorld, Seen, World, real_world

SENT, PENDING = Status.SENT, Status.PENDING
DEAD_LETTERED, DLT_FAILED = Status.DEAD_LETTERED, Status.DLT_FAILED


@pytest.fixture(params=["memory", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    url, kafka = request.getfixturevalue("database_url"), request.getfixturevalue("kafka")
    async with real_world(url, kafka) as found:
        yield found


async def append(world: World, *messages: Message) -> None:
    async with world.transaction() as connection:
        await world.outbox.append_async(connection, *messages)


def of_key(records: Sequence[Seen], key: str) -> list[bytes]:
    return [one.value for one in records if one.key == key]


async def statuses(world: World) -> list[tuple[bytes, Status]]:
    return [(row.payload, row.status) for row in await world.rows()]


async def test_what_commits_is_published_once_in_order_per_key(world: World) -> None:
    topic = await world.topic()
    keys = [f"key-{n}" for n in range(10)]
    for turn in range(3):
        await append(world, *[Message(topic, key, b"%d" % turn) for key in keys])
    await world.publish()
    await append(world, Message(topic, keys[0], b"3"))
    await world.publish()

    records = await world.records(topic)
    assert len(records) == 31
    assert of_key(records, keys[0]) == [b"0", b"1", b"2", b"3"]
    assert all(of_key(records, key) == [b"0", b"1", b"2"] for key in keys[1:])
    assert all(one.partition == bucket_of(one.key) % PARTITIONS for one in records)
    assert {row.status for row in await world.rows()} == {SENT}


async def test_a_record_has_key_payload_event_id_and_headers_in_their_order(world: World) -> None:
    topic = await world.topic()
    first = Message(topic, "사람", b"\0\xff", (("b", b"2"), ("a", b""), ("b", b"1")))
    second = Message(topic, "own", b"", (("ce_id", b"my-own-id"),))
    await append(world, first, second)
    await world.publish()
    found = {one.key: one for one in await world.records(topic)}
    assert (found["사람"].value, found["own"].value) == (b"\0\xff", b"")
    assert found["사람"].headers == (("ce_id", str(first.event_id).encode()), *first.headers)
    assert found["own"].headers == second.headers


@pytest.mark.parametrize("wrong", [[Message("t", "k", b"")], {"topic": "t"}, None])
async def test_what_is_no_message_is_refused(world: World, wrong: Any) -> None:
    async with world.transaction() as connection:
        with pytest.raises(MessageError, match=f"this is {type(wrong).__name__}"):
            await world.outbox.append_async(connection, wrong)
    assert await world.rows() == []


async def test_what_is_rolled_back_was_never_appended(world: World) -> None:
    topic = await world.topic()

    async def fails(payload: bytes) -> None:
        async with world.transaction() as connection:
            await world.outbox.append_async(connection, Message(topic, "k", payload))
            raise LookupError

    with pytest.raises(LookupError):
        await fails(b"lost")
    async with world.transaction() as connection:
        await world.outbox.append_async(connection, Message(topic, "k", b"before"))
        with suppress(LookupError):
            async with world.savepoint(connection):
                await world.outbox.append_async(connection, Message(topic, "k", b"inside"))
                raise LookupError
        async with world.savepoint(connection):
            await world.outbox.append_async(connection, Message(topic, "k", b"kept"))
        assert await world.rows() == []
    await world.publish()
    assert of_key(await world.records(topic), "k") == [b"before", b"kept"]


async def test_what_is_no_transaction_is_refused(world: World) -> None:
    outbox: Any = world.outbox
    one = Message("topic", "k", b"")
    sync, not_sync = create_engine("sqlite://"), create_async_engine("postgresql+psycopg://")
    for wrong in (sync, not_sync, not_sync.connect(), None):
        with pytest.raises(ConnectionKindError):
            outbox.append(wrong, one)
    for wrong in (sync, not_sync, _connected(sync), None):
        with pytest.raises(ConnectionKindError):
            await outbox.append_async(wrong, one)
    sync.dispose()
    assert await world.rows() == []


def _connected(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection


async def test_a_refused_row_goes_to_its_dead_letter_topic_and_its_key_goes_on(
    world: World,
) -> None:
    topic = await world.topic(limit=10_000)
    large = Message(topic, "k", b"x" * 20_000, (("kind", b"large"),))
    await append(world, Message(topic, "k", b"1"), large, Message(topic, "k", b"3"))
    await world.publish()

    assert of_key(await world.records(topic), "k") == [b"1", b"3"]
    (dead,) = await world.records(f"{topic}.DLT")
    assert (dead.key, dead.value, dead.header("kind")) == ("k", large.payload, "large")
    assert dead.header("ce_id") == str(large.event_id)
    assert dead.header("error-reason") == "too_large"
    assert dead.header("origin-topic") == topic
    assert dead.partition == bucket_of("k") % PARTITIONS
    assert [status for _, status in await statuses(world)] == [SENT, DEAD_LETTERED, SENT]


async def test_a_row_that_its_dead_letter_topic_refuses_too_stays_and_hurts_nobody(
    world: World,
) -> None:
    topic = await world.topic(limit=10_000, dead_letters=False)
    await append(world, Message(topic, "k", b"x" * 20_000), Message(topic, "k", b"2"))
    await world.publish()
    assert [status for _, status in await statuses(world)] == [DLT_FAILED, SENT]

    with pytest.raises(ReorderError):
        await world.requeue()
    assert [status for _, status in await statuses(world)] == [DLT_FAILED, SENT]
    assert await world.requeue(accept_reorder=True) == 1
    assert [status for _, status in await statuses(world)] == [PENDING, SENT]
    await world.publish()
    assert [status for _, status in await statuses(world)] == [DLT_FAILED, SENT]
    assert of_key(await world.records(topic), "k") == [b"2"]


async def test_a_topic_that_holds_back_keeps_the_order_until_the_dead_row_is_requeued(
    world: World,
) -> None:
    topic = f"{await world.topic()}.later"
    await append(world, *[Message(topic, "k", b"%d" % n) for n in range(3)])
    await world.publish(hold_back=[topic])
    assert await statuses(world) == [(b"0", DLT_FAILED), (b"1", PENDING), (b"2", PENDING)]

    await world.topic(name=topic)
    await world.publish(hold_back=[topic])
    assert await world.records(topic) == []
    assert await world.requeue() == 1
    await world.publish(hold_back=[topic])
    assert of_key(await world.records(topic), "k") == [b"0", b"1", b"2"]
    assert {status for _, status in await statuses(world)} == {SENT}


async def test_refused_rows_with_nothing_of_their_keys_behind_them_come_back_as_they_are(
    world: World,
) -> None:
    topic = f"{await world.topic()}.later"
    await append(world, *[Message(topic, f"k{n}", b"%d" % n) for n in range(2)])
    await world.publish()
    assert {status for _, status in await statuses(world)} == {DLT_FAILED}
    await world.topic(name=topic)
    assert await world.requeue() == 2
    await world.publish()
    assert {status for _, status in await statuses(world)} == {SENT}


async def test_a_key_is_held_back_in_the_topic_of_its_dead_row_only(world: World) -> None:
    missing, other = f"{await world.topic()}.later", await world.topic()
    await append(world, *[Message(topic, "k", b"x") for topic in (missing, missing, other)])
    await world.publish(hold_back=[missing])
    assert [status for _, status in await statuses(world)] == [DLT_FAILED, PENDING, SENT]


async def test_what_is_published_twice_takes_effect_once(world: World) -> None:
    topic = await world.topic()
    await append(world, *[Message(topic, "k", b"%d" % n) for n in range(5)])
    await world.publish()
    await world.forget_sent()
    await world.publish()
    twice = [b"0", b"1", b"2", b"3", b"4"] * 2
    assert of_key(await world.records(topic), "k") == twice

    async def handle(connection: Any, records: Sequence[Record]) -> None:
        for record in records:
            await world.effect(connection, (record.value or b"").decode())

    await append(world, Message(topic, "k", b"last"))
    await world.publish()

    async def reached() -> bool:
        return "last" in await world.effects()

    await world.consume(topic, handle, reached)
    assert await world.effects() == ["0", "1", "2", "3", "4", "last"]


async def test_only_what_cannot_be_handled_becomes_a_dead_letter(world: World) -> None:
    topic = await world.topic()
    poison, broken = Message(topic, "k", b"poison"), Message(topic, "k", b"broken")
    await append(world, Message(topic, "k", b"1"), poison, broken, Message(topic, "k", b"2"))
    await world.publish()
    await world.send(topic, b"k", b"no event id")
    tried = 0

    async def handle(connection: Any, records: Sequence[Record]) -> None:
        nonlocal tried
        for record in records:
            await world.effect(connection, (record.value or b"").decode())
            if record.value == b"poison":
                raise PoisonError("not_edible")
            if record.value == b"broken":
                tried += len(records) == 1
                raise LookupError

    async def reached() -> bool:
        return len(await world.records(f"{topic}.DLT")) == 3

    await world.consume(topic, handle, reached)
    assert await world.effects() == ["1", "2"]
    assert tried == ATTEMPTS
    dead = await world.records(f"{topic}.DLT")
    assert [(one.value, one.header("error-reason")) for one in dead] == [
        (b"poison", "not_edible"),
        (b"broken", "handler_failed"),
        (b"no event id", "not_ours"),
    ]
    assert dead[0].header("ce_id") == str(poison.event_id)
    assert dead[1].header("error-class") == "LookupError"
    assert dead[1].header("error-attempts") == str(ATTEMPTS)
    assert dead[0].header("origin-topic") == topic


async def test_what_may_pass_is_tried_again_in_its_place(world: World) -> None:
    topic = await world.topic()
    await append(world, *[Message(topic, "k", b"%d" % n) for n in range(3)])
    await world.publish()
    away = ATTEMPTS + 1

    async def handle(connection: Any, records: Sequence[Record]) -> None:
        nonlocal away
        for record in records:
            await world.effect(connection, (record.value or b"").decode())
        away -= 1
        if away > 0:
            raise ConnectionRefusedError

    async def reached() -> bool:
        return len(await world.effects()) == 3

    await world.consume(topic, handle, reached)
    assert await world.effects() == ["0", "1", "2"]
    assert await world.records(f"{topic}.DLT") == []


async def test_an_inbox_knows_what_committed_and_only_that(world: World) -> None:
    one, other = Message("topic", "k", b"").event_id, Message("topic", "k", b"").event_id

    async def rolled_back() -> None:
        async with world.transaction() as connection:
            assert await world.inbox.handled(connection, [one], "me") == {one}
            raise LookupError

    with pytest.raises(LookupError):
        await rolled_back()
    async with world.transaction() as connection:
        assert await world.inbox.handled(connection, [one, one], "me") == {one}
    async with world.transaction() as connection:
        assert await world.inbox.handled(connection, [one, other], "me") == {other}
        assert await world.inbox.handled(connection, [one], "somebody else") == {one}
        assert await world.inbox.handled(connection, [], "me") == set()
