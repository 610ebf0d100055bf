"""Intake beneath which servers come and go: it says so, waits, and goes on by itself."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from lethe_intake.api import READ, WRITE
from lethe_intake.storage import MIGRATIONS, VERSION_TABLE
from lethe_runtime import database
from lethe_runtime.api_keys import create_key
from lethe_sandbox.stack import Addresses, Stack
from tests.support.databases import own_database
from tests.support.intake import PATIENCE, IntakeProcess, connected, environment, prepare_kafka
from tests.support.waiting import until

SUBJECT = "acct-000017"


@dataclass(frozen=True, slots=True)
class Database:
    """A database that the test migrates when it likes."""

    url: str

    def migrate(self) -> str:
        """Bring it up and give a key of team `crm`."""
        database.migrate(self.url, MIGRATIONS, VERSION_TABLE)
        with database.connected(self.url, "test") as connection:
            return create_key(connection, "crm", (WRITE, READ))

    def count(self, table: str) -> int:
        with database.connected(self.url, "test") as connection:
            query = text(f"select count(*) from lethe.{table}")  # noqa: S608 - a name of this file
            return int(connection.execute(query).scalar_one())

    def told(self) -> int:
        """Count the events of requests; a round of watermarks may be there as well."""
        return self.count("outbox where key not like 'watermark-%'")


@pytest.fixture
def fresh(stack: Addresses) -> Iterator[Database]:
    """An empty database that outlives a restart of its server."""
    with own_database(stack) as url:
        yield Database(url)


@pytest.fixture
async def process(
    fresh: Database, kafka: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[IntakeProcess]:
    await prepare_kafka(kafka)
    process = IntakeProcess(environment(fresh.url, kafka, redis_url), tmp_path / "intake.log")
    yield process
    if process.running:
        process.signal(signal.SIGTERM)
        await process.ended()
    process.kill()
    assert SUBJECT not in process.log_text


async def test_it_waits_for_its_migration(process: IntakeProcess, fresh: Database) -> None:
    async with connected(process) as client:
        await until(client.away, within=PATIENCE, what="the wait")
        assert await client.away() == {"database": "NotMigratedError"}
        refused = await client.submit(SUBJECT)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert (await client.http.get("/healthz")).status_code == 200

        key = fresh.migrate()
        await until(client.ready, within=PATIENCE, what="readiness")

    async with connected(process, key) as client:
        assert (await client.submit(SUBJECT)).status_code == 202
    steps = process.said("dependency away")
    assert len(steps) >= 1
    assert {step["dependency"] for step in steps} == {"database"}
    assert all(step["retry_in_seconds"] <= 31 for step in steps)


async def test_a_database_away_at_start(
    running_stack: Stack, fresh: Database, kafka: str, tmp_path: Path
) -> None:
    key = fresh.migrate()
    await prepare_kafka(kafka)
    await asyncio.to_thread(running_stack.stop, "postgres")
    try:
        process = IntakeProcess(environment(fresh.url, kafka), tmp_path / "intake.log")
        async with connected(process, key) as client:
            await until(client.away, within=PATIENCE, what="the wait")
            assert set(await client.away()) == {"database"}
            assert (await client.submit(SUBJECT)).status_code == 503
    finally:
        await asyncio.to_thread(running_stack.start, "postgres")
    async with connected(process, key) as client:
        await until(client.ready, within=PATIENCE, what="readiness")
        assert (await client.submit(SUBJECT)).status_code == 202
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_a_database_away_later(
    running_stack: Stack, process: IntakeProcess, fresh: Database
) -> None:
    key = fresh.migrate()
    async with connected(process, key) as client:
        await until(client.ready, within=PATIENCE, what="readiness")
        first = await client.submit(SUBJECT)

        await asyncio.to_thread(running_stack.stop, "postgres", kill=True)
        try:
            answers = [await client.submit(SUBJECT) for _ in range(3)]
            await until(client.away, within=PATIENCE, what="notice")
        finally:
            await asyncio.to_thread(running_stack.start, "postgres")
        assert {answer.status_code for answer in answers} == {503}
        assert all(SUBJECT not in answer.text for answer in answers)
        await until(client.ready, within=PATIENCE, what="readiness")
        again = await client.submit(SUBJECT)

    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    assert fresh.count("erasure_request") == fresh.told() == 1


async def test_a_broker_away_holds_no_submission_up(
    running_stack: Stack, process: IntakeProcess, fresh: Database
) -> None:
    key = fresh.migrate()
    async with connected(process, key) as client:
        await until(client.ready, within=PATIENCE, what="readiness")
        await asyncio.to_thread(running_stack.stop, "kafka", kill=True)
        try:
            assert (await client.submit(SUBJECT)).status_code == 202
            await until(client.away, within=PATIENCE, what="notice")
            assert set(await client.away()) == {"kafka"}
            # A load balancer would take every instance out at once.
            assert await client.ready()
            assert (await client.submit("acct-000018")).status_code == 202
        finally:
            await asyncio.to_thread(running_stack.start, "kafka")
        await until(client.whole, within=PATIENCE, what="Kafka")


async def test_a_broker_away_at_start_keeps_no_instance_out(
    fresh: Database, tmp_path: Path, unused_tcp_port: int
) -> None:
    key = fresh.migrate()
    nowhere = environment(fresh.url, f"127.0.0.1:{unused_tcp_port}")
    process = IntakeProcess(nowhere, tmp_path / "intake.log")
    try:
        async with connected(process, key) as client:
            await until(client.ready, within=PATIENCE, what="readiness")
            assert (await client.submit(SUBJECT)).status_code == 202
            await until(client.away, within=PATIENCE, what="notice")
            assert set(await client.away()) == {"kafka"}
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        process.kill()


async def test_redis_away_is_no_matter(
    running_stack: Stack, process: IntakeProcess, fresh: Database
) -> None:
    key = fresh.migrate()
    await asyncio.to_thread(running_stack.stop, "redis", kill=True)
    try:
        async with connected(process, key) as client:
            await until(client.ready, within=PATIENCE, what="readiness")
            assert (await client.submit(SUBJECT)).status_code == 202
    finally:
        await asyncio.to_thread(running_stack.start, "redis")


async def test_a_kill_between_promises_loses_and_doubles_nothing(
    process: IntakeProcess, fresh: Database, kafka: str, tmp_path: Path
) -> None:
    """Whoever got no answer asks again under the same key, and there is one request each."""
    key = fresh.migrate()
    subjects = [f"acct-{number:06}" for number in range(200)]
    promised: dict[str, str] = {}

    async with connected(process, key) as client:
        await until(client.ready, within=PATIENCE, what="readiness")

        async def submit(subject: str) -> None:
            answer = await client.submit(subject, **{"Idempotency-Key": subject})
            if answer.status_code == 202:
                promised[subject] = answer.json()["id"]

        asking = [asyncio.create_task(submit(subject)) for subject in subjects]
        await until(lambda: len(promised) >= 20, what="some promises")
        process.kill()
        await asyncio.gather(*asking, return_exceptions=True)
    assert len(promised) < len(subjects)

    second = IntakeProcess(environment(fresh.url, kafka), tmp_path / "second.log")
    try:
        async with connected(second, key) as client:
            await until(client.healthy, within=PATIENCE, what="the database")
            for subject in subjects:
                answer = await client.submit(subject, **{"Idempotency-Key": subject})
                assert answer.status_code == 202
                assert promised.setdefault(subject, answer.json()["id"]) == answer.json()["id"]
    finally:
        second.kill()
    events = fresh.told()
    assert fresh.count("erasure_request") == events == len(subjects)


async def test_sigterm_finishes_what_was_begun(process: IntakeProcess, fresh: Database) -> None:
    key = fresh.migrate()
    async with connected(process, key) as client:
        await until(client.ready, within=PATIENCE, what="readiness")
        asking = [asyncio.create_task(client.submit(f"acct-{n:06}")) for n in range(30)]
        await until(lambda: any(one.done() for one in asking), what="the first answer")
        process.signal(signal.SIGTERM)
        answers = await asyncio.gather(*asking, return_exceptions=True)

    assert await process.ended() == 0
    taken = [one for one in answers if not isinstance(one, BaseException)]
    assert {one.status_code for one in taken} == {202}
    assert fresh.count("erasure_request") == len(taken)


async def test_a_port_that_is_taken_is_said(
    process: IntakeProcess, fresh: Database, kafka: str, tmp_path: Path
) -> None:
    fresh.migrate()
    port = (await process.url()).rpartition(":")[2]
    variables = {**environment(fresh.url, kafka), "LETHE_INTAKE_HTTP_PORT": port}
    second = IntakeProcess(variables, tmp_path / "second.log")
    try:
        assert await second.ended() == 1
    finally:
        second.kill()
    (line,) = second.said("loop failed")
    assert line["error_class"] == "ListenError"
    assert line["detail"] == (
        f"cannot listen on 127.0.0.1:{port}; "
        "another process does: each on a machine needs a ..._HTTP_PORT of its own"
    )
