"""A broker that freezes, dies or was never there: nobody is blamed, all goes on by itself."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_sandbox.stack import Stack
from tests.support.factories import TopicFactory
from tests.support.outbox_world import (
    QUICK,
    append_apart,
    drained,
    events,
    none_pending,
    problems,
    running,
)
from tests.support.waiting import until

KEYS = [f"key-{number}" for number in range(40)]
IMPATIENT = replace(QUICK, publish_seconds=1.0)


@pytest.fixture
def broker(running_stack: Stack) -> Iterator[Stack]:
    """The broker, which answers again at the end whatever the test did to it."""
    yield running_stack
    running_stack.resume("kafka")
    running_stack.start("kafka")


async def attempts(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        query = text("select coalesce(sum(attempts + dlt_attempts), 0) from lethe.outbox")
        return int(await connection.scalar(query) or 0)


async def test_a_frozen_broker_pauses_the_relay_and_burns_no_attempt(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, broker: Stack
) -> None:
    name = await topic()
    async with running(database_url, kafka, IMPATIENT) as relay:
        await append_apart(engine, *events(name, KEYS, 2))
        await drained(engine)
        await asyncio.to_thread(broker.pause, "kafka")
        await append_apart(engine, *events(name, KEYS, 5))
        await until(lambda: relay.value("relay_paused") == 1)
        await until(lambda: sum(state[1] == "away" for state in relay.states) > 3, within=40)
        assert {state[0] for state in relay.states if state[1] == "away"} == {"kafka"}
        assert not await none_pending(engine)
        await asyncio.to_thread(broker.resume, "kafka")
        await drained(engine, within=60)
        await until(lambda: relay.value("relay_paused") == 0)
        assert relay.states[-1] == ("kafka", "ok", "")
    assert await attempts(engine) == 0
    assert await problems(engine, kafka, [name]) == []


async def test_a_broker_that_is_away_is_told_of_once_an_attempt_and_not_by_every_lane(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    broker: Stack,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = await topic()

    def told(what: str) -> list[str]:
        lines = [line for line in caplog.messages if line.startswith(what)]
        return [line.partition("attempt ")[2].partition(",")[0] for line in lines]

    async with running(database_url, kafka, IMPATIENT) as relay:
        await append_apart(engine, *events(name, KEYS, 2))
        await drained(engine)
        await asyncio.to_thread(broker.stop, "kafka", kill=True)
        await append_apart(engine, *events(name, KEYS, 2))
        await until(lambda: "5" in told("broker away"), within=40)
        assert told("a partition takes nothing") == []
        await asyncio.to_thread(broker.start, "kafka")
        await drained(engine, within=60)
        await until(lambda: relay.value("relay_paused") == 0)
    assert Counter(told("broker away")).most_common(1)[0][1] == 1


async def test_a_broker_that_is_killed_and_started_again_loses_and_inverts_nothing(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, broker: Stack
) -> None:
    name = await topic()
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await append_apart(engine, *events(name, KEYS, 1))

    async with running(database_url, kafka, IMPATIENT) as relay:
        writing = asyncio.create_task(write())
        for kill in (True, False):
            goal = (relay.value("relay_acknowledged_total") or 0) + 400
            await relay.reach("relay_acknowledged_total", goal, within=60)
            await asyncio.to_thread(broker.stop, "kafka", kill=kill)
            await until(lambda: relay.value("relay_paused") == 1, within=40)
            await asyncio.to_thread(broker.start, "kafka")
        stop.set()
        await writing
        await drained(engine, within=90)
    assert await attempts(engine) == 0
    assert await problems(engine, kafka, [name]) == []


async def test_a_relay_that_starts_before_the_broker_waits_for_it(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, broker: Stack
) -> None:
    name = await topic()
    await append_apart(engine, *events(name, KEYS, 2))
    await asyncio.to_thread(broker.stop, "kafka")
    async with running(database_url, kafka, IMPATIENT) as relay:
        await until(lambda: relay.value("relay_paused") == 1)
        await asyncio.to_thread(broker.start, "kafka")
        await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_a_relay_stops_in_time_while_the_broker_is_away(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, broker: Stack
) -> None:
    name = await topic()
    await asyncio.to_thread(broker.pause, "kafka")
    await append_apart(engine, *events(name, KEYS, 2))
    async with running(database_url, kafka, IMPATIENT) as relay:
        await until(lambda: relay.value("relay_paused") == 1)
        relay.stop.set()
        assert relay.task is not None
        await asyncio.wait_for(asyncio.shield(relay.task), 10)
    async with engine.connect() as connection:
        owned = text("select count(*) from lethe.outbox_bucket where owner is not null")
        assert await connection.scalar(owned) == 0
