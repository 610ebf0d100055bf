"""Relays that freeze past their lease and go on as if nothing had happened."""

import asyncio
import signal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.schema import Status
from tests.support.factories import TopicFactory
from tests.support.fail_points import FailPoint
from tests.support.outbox_world import append, drained, events, problems, statuses
from tests.support.poison import LARGE, SMALL, make_dlt, too_large
from tests.support.relays import KEYS, Relays, froze, more_sent, traffic
from tests.support.topics import configure
from tests.support.waiting import until

# A freeze has to last longer than the lease.
SHORTER = {"lease_seconds": 2.5, "renew_seconds": 0.3, "margin_seconds": 0.2, "publish_seconds": 2}


async def test_frozen_at_each_step_past_the_lease_and_all_resumed_at_once(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    """Each relay takes over from the one before, then freezes itself one step further on."""
    name = await topic()
    steps = [
        FailPoint("fetch", "after", call=4, send="SIGSTOP"),
        FailPoint("hand over", "before", call=9, send="SIGSTOP"),
        FailPoint("arrive", "before", call=9, send="SIGSTOP"),
        FailPoint("acknowledge", "before", call=2, send="SIGSTOP"),
    ]
    async with traffic(engine, name):
        for step in steps:
            await froze(relays.start(step, settings=SHORTER))
        relays.start(settings=SHORTER)
        await more_sent(engine, 500)
        for relay in relays.started:
            relay.send_signal(signal.SIGCONT)
        await more_sent(engine, 1000)
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []
    assert "belongs to another relay by now" in relays.log.read_text()


@pytest.mark.parametrize("suspended", [False, True], ids=["process", "machine"])
async def test_a_refusal_that_is_cleared_while_a_relay_is_frozen_stays_as_it_was_decided(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays, *, suspended: bool
) -> None:
    """The dead row's record must not appear behind later ones when the frozen relay goes on.

    Nor when the machine was suspended, and the relay has noticed nothing of the time between.
    """
    name = await topic(config=SMALL)
    await make_dlt(kafka, name)
    key = KEYS[0]
    await append(engine, too_large(name, key), *events(name, [key], 5))
    point = FailPoint("hand over", "after", send="SIGSTOP", suspended=suspended)
    frozen = relays.start(point, settings=SHORTER)
    await froze(frozen)
    relays.start(settings=SHORTER)
    await drained(engine, within=60)
    await configure(kafka, name, LARGE)
    frozen.send_signal(signal.SIGCONT)
    await until(lambda: "belongs to another relay by now" in relays.log.read_text(), within=30)
    frozen.terminate()
    assert await asyncio.to_thread(frozen.wait, 30) == 0
    assert (await statuses(engine)).count(Status.DEAD_LETTERED) == 1
    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []


async def test_a_burial_frozen_past_the_lease_is_left_to_the_next_relay(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    """The next relay finds the refusal cleared and publishes; the dead letter is a repetition."""
    name = await topic(config=SMALL)
    await make_dlt(kafka, name)
    key = KEYS[0]
    await append(engine, *events(name, [key], 5), too_large(name, key), *events(name, [key], 5))
    frozen = relays.start(FailPoint("bury", "before", send="SIGSTOP"), settings=SHORTER)
    await froze(frozen)
    await configure(kafka, name, LARGE)
    relays.start(settings=SHORTER)
    await drained(engine, within=60)
    frozen.send_signal(signal.SIGCONT)
    await until(lambda: "belongs to another relay by now" in relays.log.read_text(), within=30)
    assert set(await statuses(engine)) == {Status.SENT}
    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []
