"""Relays that are killed, frozen and doubled: nothing lost, no first appearance out of order."""

import asyncio
import itertools
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.support import relay_process
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
from tests.support.waiting import until

KEYS = [f"key-{number}" for number in range(60)]
SHORT = {"lease_seconds": 4, "renew_seconds": 0.5, "margin_seconds": 0.5, "publish_seconds": 2}


class Relays:
    """Relay processes of one test; whatever is left is killed at the end."""

    def __init__(self, url: str, kafka: str, log: Path) -> None:
        self._url = url
        self._kafka = kafka
        self._log = log
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        process = relay_process.start(self._url, self._kafka, self._log, SHORT)
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@pytest.fixture
def relays(database_url: str, kafka: str, tmp_path: Path) -> Iterator[Relays]:
    found = Relays(database_url, kafka, tmp_path / "relay.log")
    yield found
    found.end()


@asynccontextmanager
async def traffic(engine: AsyncEngine, name: str) -> AsyncIterator[None]:
    """Append all the time."""
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await append_apart(engine, *events(name, KEYS, 1))

    writing = asyncio.gather(write(), write())
    try:
        yield
    finally:
        stop.set()
        await writing


async def sent(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        query = text("select count(*) from lethe.outbox where status = 1")
        return int(await connection.scalar(query) or 0)


async def more_sent(engine: AsyncEngine, rows: int) -> None:
    goal = await sent(engine) + rows

    async def reached() -> bool:
        return await sent(engine) >= goal

    await until(reached, within=40, what=f"{rows} more rows sent")


async def owners(engine: AsyncEngine) -> dict[str, int]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text(
                "select owner::text, count(*) from lethe.outbox_bucket"
                " where lease_until > now() group by owner"
            )
        )
        return {row[0]: row[1] for row in rows}


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
    await until(lambda: "database away (" in log.read_text(), within=30)
    lay(database_url)
    engine = create_async_engine(database_url)
    await append_apart(engine, *events(name, KEYS, 1))
    await drained(engine, within=40)
    await engine.dispose()
