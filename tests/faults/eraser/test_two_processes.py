"""Real processes, one of them killed or stopped while S3 does what it asked for."""

import asyncio
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lethe_eraser.consumer import GROUP
from lethe_sandbox.stack import S3Address
from tests.faults.eraser.audit import (
    Before,
    assert_erased_once,
    assert_traceable,
    look,
    of_sketches,
)
from tests.faults.eraser.test_process import environment, publish, running
from tests.integration.eraser.world import OTHER, SUBJECT, World, until_state
from tests.support.forked import lethe
from tests.support.tcp_proxy import TcpProxy
from tests.support.topics import evict
from tests.support.waiting import until

__all__ = ["environment"]

REQUESTS: Final = 6
EXPECTED: Final = {"sketch": of_sketches(REQUESTS)}


async def a_person(world: World, environment: Mapping[str, str]) -> Before:
    """Somebody with six batches, and somebody else; the tables are there."""
    for number in range(REQUESTS):
        await world.sketch(number)
    await world.sketch(1, subject=OTHER)
    migrated = lethe(environment, "migrate", "--only", "eraser")
    assert migrated.returncode == 0, migrated.stderr
    return await look(world)


def way_to(s3: S3Address) -> TcpProxy:
    there = urlsplit(s3.endpoint)
    return TcpProxy(there.hostname or "", there.port or 0)


def by(proxy: TcpProxy, environment: Mapping[str, str]) -> Mapping[str, str]:
    return {**environment, "LETHE_ERASER_S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}


async def amid_a_batch(world: World, proxy: TcpProxy) -> None:
    """Wait until the process waits for S3 to answer, between an intent and its mask."""

    async def begun() -> bool:
        return bool(await world.value("select coalesce(max(batches), 0) from lethe.job"))

    async def pending() -> bool:
        return bool(await world.value("select count(*) from lethe.journal where not masked"))

    await until(begun, within=120, what="a batch")
    proxy.silence()
    await until(pending, within=120, what="an intent")


def says(log: Path, words: str) -> bool:
    return words in log.read_text()


async def test_killed_while_the_answer_of_s3_is_on_its_way(
    world: World, environment: Mapping[str, str], kafka: str, s3: S3Address, tmp_path: Path
) -> None:
    before = await a_person(world, environment)
    log = tmp_path / "eraser.log"
    await publish(world, kafka, world.requested())
    async with way_to(s3).running() as proxy:
        with running(by(proxy, environment), log) as process:
            await amid_a_batch(world, proxy)
            process.send_signal(signal.SIGKILL)
            process.wait()
    await evict(kafka, GROUP)
    assert await world.state() == "running"
    await assert_traceable(world, before, SUBJECT)
    with running(environment, log):
        await until_state(world, "verified", within=120)
    await assert_erased_once(world, before, SUBJECT, EXPECTED)


async def test_stopped_past_a_rebalance_it_commits_nothing_when_it_goes_on(
    world: World, environment: Mapping[str, str], kafka: str, s3: S3Address, tmp_path: Path
) -> None:
    before = await a_person(world, environment)
    stopped_log, other_log = tmp_path / "stopped.log", tmp_path / "other.log"
    await publish(world, kafka, world.requested())
    async with way_to(s3).running() as proxy:
        with running(by(proxy, environment), stopped_log) as process:
            await amid_a_batch(world, proxy)
            process.send_signal(signal.SIGSTOP)
            assert await world.value("select generation from lethe.job") == 1
            # The group gives its partitions away when nothing was heard of it for ten seconds.
            with running(environment, other_log):
                await until_state(world, "verified", within=120)
                generation = await world.value("select generation from lethe.job")
                assert generation > 1
                await assert_erased_once(world, before, SUBJECT, EXPECTED)
                after = await look(world), await world.said()
                job = await world.rows("select * from lethe.job")
                proxy.speak()
                process.send_signal(signal.SIGCONT)
                await until(
                    partial(says, stopped_log, "job taken over"), within=120, what="the stopped one"
                )
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
    assert (await look(world), await world.said()) == after
    assert await world.rows("select * from lethe.job") == job
