"""One soak: writers fill an outbox while relays and a consumer are worked against, then judged."""

import asyncio
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import TextClause, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_outbox import TopicSpec, bucket_of, ensure_topics, initialise_group
from lethe_outbox.migrations import create_inbox, create_outbox, create_outbox_upkeep
from lethe_sandbox.stack import Stack
from tests.soak import world
from tests.soak.chaos import Chaos
from tests.soak.verdict import judge
from tests.soak.writing import Ledger, Writer
from tests.support.databases import lay
from tests.support.waiting import until

WRITERS: Final = 4
_TELL_SECONDS: Final = 10
_NONE_PENDING: Final = text("SELECT NOT EXISTS (SELECT FROM lethe.outbox WHERE status = 0)")
_EFFECTS: Final = text("SELECT coalesce(sum(count), 0) FROM soak_effect")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """How long and how hard a soak is; `python -m tests.soak --help`."""

    rows: int
    keys: int
    relays: int
    pause: float
    poison_every: int
    patience: float
    seed: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a soak found, and what it saw."""

    problems: list[str]
    told: str


async def soak(stack: Stack, database: str, asked: Asked, folder: Path, *, say: Say) -> Result:
    """Run one soak on servers that nobody else uses; the logs of its processes go to `folder`."""
    url, kafka = stack.addresses.database_url(database), stack.addresses.kafka
    _lay(stack.addresses.database_url("postgres"), url, database)
    await _lay_topics(kafka)
    engine = create_async_engine(url, pool_size=WRITERS + 3)
    ledger = Ledger()
    chaos = Chaos(engine, url, stack, folder, asked.relays, asked.seed, asked.pause)
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell(engine, chaos, ledger, say))
            working_against = group.create_task(chaos.run())
            await _write(engine, ledger, asked)
            say(f"all written after {time.monotonic() - began:.0f} s")
            working_against.cancel()
            await asyncio.wait({working_against})
            chaos.calm()
            await _finished(engine, ledger, asked.patience)
            say(f"all handled after {time.monotonic() - began:.0f} s")
            telling.cancel()
    finally:
        chaos.end()
    problems, seen = await judge(engine, kafka, ledger)
    await engine.dispose()
    return Result(problems, _told(asked, chaos, seen, time.monotonic() - began))


def _lay(server: str, url: str, database: str) -> None:
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{database}"'))
    admin.dispose()
    lay(url, create_outbox, create_outbox_upkeep, create_inbox, world.lay)


async def _lay_topics(kafka: str) -> None:
    taken = {"max.message.bytes": str(world.LARGEST_RECORD)}
    anything = {"max.message.bytes": str(world.LARGEST_RECORD * 4)}
    await ensure_topics(
        kafka,
        [
            TopicSpec(world.TOPIC, world.PARTITIONS, taken),
            TopicSpec(f"{world.TOPIC}.DLT", world.PARTITIONS, anything),
        ],
    )
    await initialise_group(kafka, world.GROUP, [world.TOPIC])


async def _write(engine: AsyncEngine, ledger: Ledger, asked: Asked) -> None:
    """Write everything, each writer in buckets of its own, so that none waits for another."""
    keys: list[list[str]] = [[] for _ in range(WRITERS)]
    for key in (f"key-{number}" for number in range(asked.keys)):
        keys[bucket_of(key) * WRITERS // 256].append(key)
    async with asyncio.TaskGroup() as group:
        for number, own in enumerate(keys):
            rows = asked.rows // WRITERS + (number < asked.rows % WRITERS)
            writer = Writer(engine, own, ledger, asked.seed * WRITERS + number)
            group.create_task(writer.run(rows, asked.poison_every))


async def _finished(engine: AsyncEngine, ledger: Ledger, patience: float) -> None:
    expected = ledger.rows - sum(map(len, ledger.refused.values()))

    async def drained() -> bool:
        return bool(await _scalar(engine, _NONE_PENDING))

    async def handled() -> bool:
        return int(await _scalar(engine, _EFFECTS)) >= expected

    await until(drained, within=patience, every=0.5, what="an outbox without pending rows")
    await until(handled, within=patience, every=0.5, what="the effect of every event")


async def _tell(engine: AsyncEngine, chaos: Chaos, ledger: Ledger, say: Say) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        handled = await _scalar(engine, _EFFECTS)
        harm = ", ".join(f"{count} {what}" for what, count in sorted(chaos.done.items()))
        say(f"{time.monotonic() - began:5.0f} s: {ledger.rows} written, {handled} handled; {harm}")


async def _scalar(engine: AsyncEngine, query: TextClause) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(query) or 0)


def _told(asked: Asked, chaos: Chaos, seen: str, seconds: float) -> str:
    harm = ", ".join(f"{count} {what}" for what, count in sorted(chaos.done.items()))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        f"{asked.rows} rows of {asked.keys} keys, {asked.relays} relays at a time, {seconds:.0f} s"
        f" (seed {asked.seed})\n{harm}\n{seen}\nwriters and checker: {resident} MB resident at most"
    )
