"""The real process on real servers, killed with SIGKILL again and again."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from lethe_contracts.events import BatchErased, Event, TypeTotals
from lethe_eraser.consumer import GROUP, TOPICS
from lethe_outbox import ensure_topics
from lethe_relay.topics import specs
from lethe_sandbox.stack import S3Address
from tests.faults.eraser.audit import of_sketches
from tests.integration.eraser.world import NOTHING, OTHER, REF, SUBJECT, World, until_state
from tests.support.forked import Forked, fork_lethe, lethe
from tests.support.topics import evict, skip_to_end
from tests.support.waiting import until

REQUESTS = 12


@pytest.fixture
async def environment(
    world: World, kafka: str, database_url: str, redis_url: str, s3: S3Address, tmp_path: Path
) -> Mapping[str, str]:
    """What a process of this world needs; topics exist, and the group has nothing to read."""
    await ensure_topics(kafka, specs(replication_factor=1))
    await skip_to_end(kafka, GROUP, TOPICS)
    ours = {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP": kafka,
        "REDIS_URL": redis_url,
        "CATALOG": str(tmp_path / "catalog.yaml"),
        "SUBJECT_CIPHER_KEYS": world.ring.render(),
        "WINDOW": "always",
        "S3_ENDPOINT_URL": s3.endpoint,
        "S3_REGION": s3.region,
        "S3_ACCESS_KEY_ID": s3.access_key_id,
        "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
        "BATCH_ROWS": "1",
        # As long as may be: what the world knows from its beginning is to outlast every outage.
        "CONTROL_FRESH_SECONDS": "3600",
        "HTTP_PORT": "0",
    }
    return {f"LETHE_ERASER_{name}": value for name, value in ours.items()}


@contextmanager
def running(environment: Mapping[str, str], log: Path) -> Iterator[Forked]:
    """An eraser process; killed at the end if it still runs.

    A failure in the block carries the end of the process's log, and whether it had ended by itself.
    """
    process = fork_lethe(environment, "eraser", "run", out=log)
    try:
        yield process
    except AssertionError as failure:
        failure.add_note(f"the eraser (exit {process.poll()}) said last:\n{end_of(log)}")
        raise
    finally:
        process.kill()
        process.wait()


def end_of(log: Path) -> str:
    """What a process said last."""
    return "\n".join(log.read_text().splitlines()[-40:])


async def publish(world: World, kafka: str, *events: Event, ref: str = REF) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for event in events:
            record = world.record(event, ref=ref)
            await producer.send_and_wait(
                record.topic, record.value, key=record.key, headers=list(record.headers)
            )
    finally:
        await producer.stop()


async def test_killed_at_any_moment_the_person_is_erased_once(
    world: World, environment: Mapping[str, str], kafka: str, tmp_path: Path
) -> None:
    for number in range(REQUESTS):
        await world.sketch(number)
    await world.document(1)
    await world.sketch(1, subject=OTHER)
    migrated = lethe(environment, "migrate", "--only", "eraser")
    assert migrated.returncode == 0, migrated.stderr
    log = tmp_path / "eraser.log"
    await publish(world, kafka, world.requested())

    for batches in (1, 7):
        with running(environment, log) as process:
            condition: Callable[[], bool | Awaitable[bool]] = partial(_reached, world, batches)
            await until(condition, within=60, what=f"batch {batches}")
            process.send_signal(signal.SIGKILL)
            process.wait()
        await evict(kafka, GROUP)
    with running(environment, log) as process:
        await until_state(world, "verified", within=60)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0

    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.left_of(OTHER))["objects"] == 2
    said = await world.said()
    assert [one.sequence for one in said] == list(range(1, len(said) + 1))
    batches_told = [one.event.batch for one in said if isinstance(one.event, BatchErased)]
    assert batches_told == sorted(set(batches_told))
    assert said[-1].event.totals == {
        "sketch": of_sketches(REQUESTS),
        "document": TypeTotals(feature_rows=1, client_rows=1, objects_gone=3),
    }
    text = log.read_text()
    assert SUBJECT not in text
    assert "uploads/" not in text


async def _reached(world: World, batches: int) -> bool:
    rows = await world.rows("select batches, state from lethe.job")
    return bool(rows) and (rows[0].batches >= batches or rows[0].state == "verified")


@pytest.mark.usefixtures("world")
async def test_ready_only_when_everything_is_there_and_metrics_are_told(
    environment: Mapping[str, str], tmp_path: Path, unused_tcp_port: int
) -> None:
    environment = {**environment, "LETHE_ERASER_HTTP_PORT": str(unused_tcp_port)}
    url = f"http://127.0.0.1:{unused_tcp_port}"
    lethe(environment, "migrate", "--only", "eraser")
    async with httpx.AsyncClient() as client:

        async def found(path: str, *wanted: str) -> bool:
            try:
                answer = await client.get(f"{url}{path}")
            except httpx.TransportError:
                return False
            return answer.status_code == HTTPStatus.OK and all(w in answer.text for w in wanted)

        with running(environment, tmp_path / "eraser.log"):
            for path, *wanted in (
                ("/readyz", '"ready":true', "s3", "catalog"),
                ("/metrics", 'eraser_jobs{state="verified"} 0.0', "eraser_window_open 1.0"),
            ):
                asked: Callable[[], bool | Awaitable[bool]] = partial(found, path, *wanted)
                await until(asked, within=60, what=path)


async def test_a_catalog_that_does_not_fit_the_database_refuses_the_start(
    world: World, environment: Mapping[str, str], tmp_path: Path
) -> None:
    lethe(environment, "migrate", "--only", "eraser")
    await world.write("alter table public.sketch_task rename column result to outcome")
    refused = lethe(environment, "eraser", "run")
    assert refused.returncode == 1
    assert "sketch_task.result" in refused.stdout
    path = tmp_path / "catalog.yaml"
    path.write_text(path.read_text().replace("ownership: owned", "ownership: mine"))
    refused = lethe(environment, "eraser", "run")
    assert refused.returncode == 2
    assert "catalog.yaml" in refused.stderr


async def test_preview_counts_and_touches_nothing(
    world: World, environment: Mapping[str, str]
) -> None:
    for number in range(3):
        await world.sketch(number)
    await world.sketch(4, option={"bucket": world.buckets["uploads"], "key": "templates/a.png"})
    await world.sketch(5, url="https://elsewhere.example/a.png")
    await world.client_row("video-upscale", 1)
    await world.document(1)
    before = await world.product(), [world.keys(name) for name in world.buckets]
    lethe(environment, "migrate", "--only", "eraser")
    tables = await world.rows("select count(*) from lethe.job")

    shown = lethe(environment, "eraser", "preview", SUBJECT, "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == {
        "client_rows": {"client": 7},
        "requests": {"document": 1, "sketch": 5, "video-upscale": 1},
        "rows": {"public.document": 1, "public.sketch_feature": 5, "public.sketch_task": 4},
        "objects": {
            world.buckets["documents"]: {"gone": 3},
            world.buckets["results"]: {"gone": 4},
            world.buckets["uploads"]: {"gone": 4},
        },
        "objects_kept": 1,
        "objects_if_unreferenced": 0,
        "blocked": {"unknown_type": 1, "unresolved_reference": 1},
        "unresolved": 1,
        "job_id": None,
        "state": None,
        "holds": None,
        "is_customer": None,
        "expected_seconds": None,
    }
    plain = lethe(environment, "eraser", "preview", SUBJECT)
    assert "rows to be masked per table: 10" in plain.stdout
    assert SUBJECT not in plain.stdout + plain.stderr
    assert (await world.product(), [world.keys(name) for name in world.buckets]) == before
    assert await world.rows("select count(*) from lethe.job") == tables
