"""A relay that dies on the line before, or on the line after, each thing that it does."""

import itertools
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.schema import Status
from tests.support.factories import TopicFactory
from tests.support.fail_points import STEPS, FailPoint, Side
from tests.support.outbox_world import append, append_apart, drained, events, problems, stored
from tests.support.poison import SMALL, make_dlt, too_large
from tests.support.relays import KEYS, Relays, more_sent, traffic

SIDES: Final[tuple[Side, ...]] = ("before", "after")
LEASES = ("register", "claim", "renew")
PIPELINE = ("look", "fetch", "hand over", "arrive", "acknowledge")
REFUSAL = ("dead letter", "bury")
END = ("release", "deregister")


def test_each_step_is_killed_at() -> None:
    assert set(LEASES + PIPELINE + REFUSAL + END) == set(STEPS)


async def test_killed_at_each_step_of_the_pipeline(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()
    await append_apart(engine, *events(name, KEYS, 5))
    async with traffic(engine, name):
        for step, when in itertools.product(PIPELINE, SIDES):
            # Not at the first call, so that something stands half done.
            await relays.die(FailPoint(step, when, call=4))
    relays.start()
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_killed_at_each_step_of_the_leases(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()
    async with traffic(engine, name):
        for step, when in itertools.product(LEASES, SIDES):
            # The first turn has nothing to renew yet.
            await relays.die(FailPoint(step, when, call=2 if step == "renew" else 1))
        for step, when in itertools.product(END, SIDES):
            relay = relays.start(FailPoint(step, when))
            await more_sent(engine, 100)
            assert relay.poll() is None
            relay.terminate()
            await relays.died(relay)
    relays.start()
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_killed_at_each_step_of_a_burial(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic(config=SMALL)
    await make_dlt(kafka, name)
    for step, when in itertools.product(REFUSAL, SIDES):
        await append(engine, *events(name, KEYS[:5], 3), too_large(name, KEYS[0]))
        await append(engine, *events(name, KEYS[:5], 3))
        await relays.die(FailPoint(step, when))
    relays.start()
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []
    dead = [row for row in await stored(engine) if row.status is Status.DEAD_LETTERED]
    assert len(dead) == len(REFUSAL) * len(SIDES)
