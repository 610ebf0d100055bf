"""Setting aside: who must know first is told first, and nothing is dropped while they cannot be."""

from collections import Counter

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_outbox import dead_letter_topic
from lethe_outbox.consumer.quarantine import DeadRecord
from tests.integration.outbox.conftest import Publish, ReadAll
from tests.integration.outbox.consuming import (
    Harness,
    Spoil,
    effects,
    ended_by_hand,
    running,
    swallowed,
)
from tests.support.waiting import until


async def test_whoever_must_know_is_told_before_the_dead_letter_topic(
    harness: Harness, publish: Publish, read_all: ReadAll
) -> None:
    calls = Counter[str]()
    told: list[DeadRecord] = []
    dead_letters_then: list[int] = []

    async def tell(connection: AsyncConnection, dead: DeadRecord) -> None:
        calls["tell"] += 1
        if calls["tell"] <= 2:
            raise KeyError("not now")
        dead_letters_then.append(len(await read_all(dead_letter_topic(harness.topic))))
        told.append(dead)
        await connection.execute(
            text("INSERT INTO effect VALUES (:id, 'told')"), {"id": dead.event_id}
        )

    event_id = await publish(harness.topic, b"poison", key=b"person")
    await publish(harness.topic, b"behind it", key=b"person")
    async with running(harness.runner(on_dead_letter=tell)):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 1)
    (dead,) = told
    assert (dead.topic, dead.offset, dead.key) == (harness.topic, 0, b"person")
    assert (dead.event_id, dead.reason) == (event_id, "of_the_test")
    assert dead_letters_then == [0]
    assert await effects(harness.engine) == ["told", "behind it"]
    (record,) = await read_all(dead_letter_topic(harness.topic))
    assert record.value == b"poison"


@pytest.mark.parametrize("spoil", [swallowed, AsyncConnection.rollback, ended_by_hand])
async def test_whoever_loses_what_it_was_told_is_told_again(
    harness: Harness, publish: Publish, read_all: ReadAll, spoil: Spoil
) -> None:
    """PostgreSQL answers COMMIT with a rollback, and no error, after a statement failed."""
    calls = Counter[str]()

    async def tell(connection: AsyncConnection, dead: DeadRecord) -> None:
        calls["tell"] += 1
        await connection.execute(
            text("INSERT INTO effect VALUES (:id, 'told')"), {"id": dead.event_id}
        )
        if calls["tell"] <= 2:
            await spoil(connection)

    await publish(harness.topic, b"poison", key=b"person")
    async with running(harness.runner(on_dead_letter=tell)):
        await until(lambda: harness.count("dead_lettered") == 1)
    assert calls["tell"] == 3
    assert await effects(harness.engine) == ["told"]
    assert len(await read_all(dead_letter_topic(harness.topic))) == 1


async def test_it_is_told_of_records_that_are_not_ours_too(
    harness: Harness, publish: Publish
) -> None:
    told: list[DeadRecord] = []

    async def tell(connection: AsyncConnection, dead: DeadRecord) -> None:
        del connection
        told.append(dead)

    await publish(harness.topic, b"foreign", key=b"k", headers=())
    async with running(harness.runner(on_dead_letter=tell)):
        await until(lambda: harness.count("dead_lettered") == 1)
    (dead,) = told
    assert (dead.event_id, dead.reason) == (None, "not_ours")
