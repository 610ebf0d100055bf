"""After `verified` no identifier, URL or key is left in clear, wherever a run leaves anything."""

import asyncio
import re
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from lethe_contracts.topics import TOPICS, dead_letter_topic
from lethe_sandbox.stack import S3Address
from tests.faults.eraser.test_process import environment, publish, running
from tests.integration.eraser.world import World, until_state
from tests.support.forked import lethe
from tests.support.outbox_world import drained
from tests.support.outbox_world import running as relaying
from tests.support.topics import read_raw
from tests.support.traces import of_database, of_records, of_redis, traces
from tests.support.waiting import until

__all__ = ["environment"]

MARK: Final = "zq7xw93kfj"
"""A word of the client key, and so of every key and URL of the person; nothing else has it."""
SUBJECT: Final = f"kim {MARK}"
TOKEN: Final = re.compile(rb"(?<![\w.])\d+\.[A-Za-z0-9_-]{40,}")
"""How the cipher writes; the journal and the job's subject look so while a job runs."""


async def test_nothing_readable_is_left(
    world: World,
    environment: Mapping[str, str],
    kafka: str,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    unused_tcp_port: int,
    s3: S3Address,
) -> None:
    del s3
    for number in range(3):
        await world.sketch(number, subject=SUBJECT, source="client" if number else "client_old")
    await world.document(1, subject=SUBJECT)
    lethe(environment, "migrate", "--only", "eraser")
    log = tmp_path / "eraser.log"
    ours = {**environment, "LETHE_ERASER_HTTP_PORT": str(unused_tcp_port)}
    request = world.requested(subject=SUBJECT)
    known = set(traces(_kept(database_url), [MARK]))
    assert "public.client_2024.client_key" in known, "the search finds what is there"

    async with relaying(database_url, kafka), httpx.AsyncClient() as client:
        with running(ours, log) as process:
            await publish(world, kafka, request)
            await until(partial(_accepted, world), within=120, what="the job")
            await until_state(world, "verified", within=120)
            await drained(world.engine)
            metrics = await _told(client, f"http://127.0.0.1:{unused_tcp_port}/metrics")
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait)
    topics = [*TOPICS, *map(dead_letter_topic, TOPICS)]
    records = await read_raw(kafka, topics)
    assert {record.topic for record in records} >= set(TOPICS)
    places = [
        *_kept(database_url),
        *of_records(records),
        *of_redis(redis_url),
        ("the log", log.read_bytes()),
        ("the metrics", metrics.encode()),
    ]
    assert traces(places, [MARK]) == []
    ciphertext = [place for place, value in _kept(database_url) if TOKEN.search(value)]
    assert ciphertext == [], "ciphertext of the job is left"


async def _accepted(world: World) -> bool:
    return bool(await world.value("select count(*) from lethe.job"))


async def _told(client: httpx.AsyncClient, url: str) -> str:
    async def sampled() -> str:
        text = (await client.get(url)).text
        return text if 'eraser_jobs{state="verified"} 1.0' in text else ""

    return await until(sampled, within=120, what="the sampler")


def _kept(database_url: str) -> Iterator[tuple[str, bytes]]:
    return of_database(database_url)
