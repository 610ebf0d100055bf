"""The clock of a relay's machine, and of the broker's, when they do not agree."""

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import ensure_topics
from lethe_outbox.schema import Status
from lethe_relay.topics import specs
from tests.support.factories import TopicFactory
from tests.support.outbox_world import (
    QUICK,
    append,
    drained,
    events,
    key_in_lane,
    problems,
    running,
    statuses,
)
from tests.support.poison import make_dlt
from tests.support.waiting import until

LOG_APPEND_TIME = 1
AHEAD, RIGHT = timedelta(hours=2), timedelta()


class Clock:
    """What the relay's machine believes that it is too late by."""

    def __init__(self) -> None:
        self.off = AHEAD


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, real = Clock(), BatchBuilder.append

    def append(self: Any, *, timestamp: int | None, **record: Any) -> Any:
        assert timestamp is None, "the relay lets aiokafka ask the clock"
        off = int(clock.off.total_seconds() * 1000)
        return real(self, timestamp=int(time.time() * 1000) + off, **record)

    monkeypatch.setattr(BatchBuilder, "append", append)
    return clock


async def test_what_is_refused_for_the_clock_s_sake_waits_until_the_clock_is_right(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, clock: Clock
) -> None:
    """An hour ahead of itself is what a broker takes at most; none of the records is to blame."""
    name = await topic()
    await make_dlt(kafka, name)
    await append(engine, *events(name, [f"key-{number}" for number in range(20)], 5))
    async with running(database_url, kafka, replace(QUICK, publish_seconds=1.0)) as relay:
        await until(lambda: relay.value("relay_paused") == 1)
        assert relay.states[-1] == ("kafka", "away", "InvalidTimestampError")
        assert set(await statuses(engine)) == {Status.PENDING}
        clock.off = RIGHT
        await drained(engine, within=60)
        await until(lambda: relay.value("relay_paused") == 0)
    assert await problems(engine, kafka, [name]) == []
    assert set(await statuses(engine)) == {Status.SENT}


async def test_a_topic_that_takes_the_time_of_no_record_is_in_no_other_lane_s_way(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, clock: Clock
) -> None:
    tolerant = {"message.timestamp.after.max.ms": str(int(2 * AHEAD.total_seconds() * 1000))}
    strict, other = await topic(), await topic(config=tolerant)
    settings = replace(QUICK, publish_seconds=1.0)
    await append(engine, *events(strict, [key_in_lane(3)], 5))
    async with running(database_url, kafka, settings) as relay:
        await until(lambda: relay.value("relay_paused") == 1)
        await append(engine, *events(other, [key_in_lane(lane) for lane in (4, 5)], 50))
        await until(lambda: relay.value("relay_published_total", topic=other) == 100)
        assert (await statuses(engine)).count(Status.PENDING) >= 5
        clock.off = RIGHT
        await drained(engine, within=60)
    assert await problems(engine, kafka, [strict, other]) == []


@pytest.mark.parametrize("off", [timedelta(hours=2), -timedelta(days=40)])
async def test_a_topic_of_ours_takes_what_a_wrong_clock_wrote_and_keeps_it_by_the_broker_s(
    kafka: str, off: timedelta
) -> None:
    made = [replace(spec, name=f"{spec.name}.{uuid4().hex}") for spec in specs(1)]
    await ensure_topics(kafka, made)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for spec in made:
            before = int(time.time() * 1000)
            wrong = before + int(off.total_seconds() * 1000)
            kept = await producer.send_and_wait(spec.name, b"x", timestamp_ms=wrong)
            assert kept.timestamp_type == LOG_APPEND_TIME
            assert before <= kept.timestamp <= int(time.time() * 1000)
    finally:
        await producer.stop()
