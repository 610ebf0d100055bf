"""Relays that are killed, frozen and doubled: nothing lost, no first appearance out of order."""

import asyncio
import itertools
import signal
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge
from tests.support.outbox_world import (
    append_apart,
    drained,
    events,
    lay,
    problems,
    read_topics,
    stored,
)
from tests.support.relays import KEYS, Relays, more_sent, owners, traffic
from tests.support.waiting import until


async def test_a_relay_killed_again_and_again_loses_nothing(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()
    async with traffic(engine, name):
        for rows in (1, 200, 700, 300):
            relay = relays.start()
            await more_sent(engine, rows)
            relay.kill()
            relay.wait()
    relays.start()
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_a_relay_that_is_asked_to_stop_ends_well_and_leaves_nothing_leased(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()
    relay = relays.start()
    async with traffic(engine, name):
        await more_sent(engine, 300)
        relay.terminate()
        assert await asyncio.to_thread(relay.wait, 15) == 0
    assert await owners(engine) == {}
    relays.start()
    await drained(engine, within=60)
    records = await read_topics(kafka, [name])
    rows = await stored(engine)
    assert judge(rows, records) == []
    # Nothing was handed over and left behind, so nothing was repeated.
    assert len(records) == len(rows)


async def test_a_relay_frozen_past_its_lease_acknowledges_nothing_and_inverts_nothing(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()
    async with traffic(engine, name):
        frozen = relays.start()
        await more_sent(engine, 300)
        for _ in range(2):
            frozen.send_signal(signal.SIGSTOP)
            other = relays.start()
            await more_sent(engine, 500)
            frozen.send_signal(signal.SIGCONT)
            await more_sent(engine, 500)
            frozen = other
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_three_relays_share_the_buckets_and_come_and_go(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()

    async def shared(count: int) -> None:
        fair = 256 / count

        async def is_fair() -> bool:
            found = list((await owners(engine)).values())
            return len(found) == count and all(0.75 * fair <= n <= 1.25 * fair for n in found)

        await until(is_fair, within=30, what=f"{count} fair shares")

    async with traffic(engine, name):
        for count in (1, 2, 3):
            relays.start()
            await shared(count)
            await more_sent(engine, 300)
        relays.started[0].terminate()
        relays.started[1].kill()
        await shared(1)
        await more_sent(engine, 300)
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_a_restarted_relay_does_not_wait_for_the_lease_of_a_killed_one(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()
    relay = relays.start()
    await append_apart(engine, *events(name, KEYS, 1))
    await drained(engine)
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox_bucket set lease_until = now() + interval '1 hour'")
        )
        await connection.execute(
            text("update lethe.outbox_relay set alive_until = now() + interval '1 hour'")
        )
        relay.kill()
        relay.wait()
    await append_apart(engine, *events(name, KEYS, 1))
    relays.start()
    await drained(engine, within=20)
    assert await problems(engine, kafka, [name]) == []


async def test_database_sessions_cut_off_again_and_again_lose_nothing(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    name = await topic()
    relays.start()
    cut = text(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name like :purpose"
    )
    purposes = itertools.cycle(["%-read", "%-acknowledge", "%-lease", "%-look"])
    async with traffic(engine, name):
        for _, purpose in zip(range(8), purposes, strict=False):
            await more_sent(engine, 150)
            async with engine.begin() as connection:
                await connection.execute(cut, {"purpose": purpose})
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_a_relay_waits_for_the_migration(
    database_url: str, topic: TopicFactory, relays: Relays, tmp_path: Path
) -> None:
    name = await topic()
    relays.start()
    log = tmp_path / "relay.log"
    await until(lambda: "tables or rights are missing (" in log.read_text(), within=30)
    lay(database_url)
    engine = create_async_engine(database_url)
    await append_apart(engine, *events(name, KEYS, 1))
    await drained(engine, within=40)
    await engine.dispose()
