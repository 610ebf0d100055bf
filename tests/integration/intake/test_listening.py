"""The eraser's words reach intake's requests through Kafka: once, in order, among anything."""

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import text
from uuid_utils.compat import uuid7

from lethe_contracts import events
from lethe_contracts.codec import Envelope, encode
from lethe_contracts.sources import ERASER
from lethe_contracts.states import BlockReason
from lethe_contracts.subject import SubjectRefs
from lethe_contracts.topics import EVENTS, dead_letter_topic
from lethe_runtime import database
from tests.support.intake import (
    PATIENCE,
    RING,
    IntakeClient,
    IntakeProcess,
    Raw,
    connected,
    environment,
    prepare_kafka,
    publish,
    say,
)
from tests.support.waiting import until

SUBJECT = "acct-000017"
REF = SubjectRefs(RING).of(SUBJECT)


@dataclass(frozen=True, slots=True)
class Listening:
    client: IntakeClient
    process: IntakeProcess
    kafka: str
    url: str

    def ciphertext(self, request_id: str) -> str | None:
        query = text("select subject_ciphertext from lethe.erasure_request where request_id = :id")
        with database.connected(self.url, "test") as connection:
            found: str | None = connection.execute(query, {"id": request_id}).scalar_one()
        return found

    async def reaches(self, request_id: str, state: str) -> None:
        async def reached() -> bool:
            return await self.client.state(request_id) == state

        await until(reached, within=PATIENCE, what=f"state {state}")


@pytest.fixture
async def listening(
    intake_url: str, key: str, kafka: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Listening]:
    await prepare_kafka(kafka)
    process = IntakeProcess(environment(intake_url, kafka, redis_url), tmp_path / "intake.log")
    try:
        async with connected(process, key) as client:
            await until(client.ready, within=PATIENCE, what="readiness")
            yield Listening(client, process, kafka, intake_url)
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
    finally:
        process.kill()


def word(
    event: type[events.JobEvent], request_id: str, job_id: UUID, sequence: int, **more: Any
) -> Envelope[events.Event]:
    return Envelope(
        id=uuid7(),
        source=ERASER,
        aggregate=job_id,
        sequence=sequence,
        time=datetime.now(UTC),
        subject_ref=REF,
        event=event(job_id=job_id, request_ids=(UUID(request_id),), totals={}, **more),
    )


async def test_a_request_follows_its_job_and_forgets_the_person(listening: Listening) -> None:
    request = (await listening.client.submit(SUBJECT)).json()["id"]
    job = uuid7()
    now = datetime.now(UTC)
    assert listening.ciphertext(request) is not None

    await say(listening.kafka, word(events.Accepted, request, job, 1, not_before=now))
    await listening.reaches(request, "accepted")
    await say(
        listening.kafka,
        word(events.Started, request, job, 2),
        word(events.BatchErased, request, job, 3, request_type="upscale", batch=1),
    )
    await listening.reaches(request, "running")
    assert listening.ciphertext(request) is not None
    await say(listening.kafka, word(events.Erased, request, job, 4))
    await listening.reaches(request, "erased")
    await say(listening.kafka, word(events.Verified, request, job, 5))
    await listening.reaches(request, "verified")

    assert listening.ciphertext(request) is None
    document = (await listening.client.http.get(f"/v1/erasure-requests/{request}")).json()
    assert document["closed_at"] is not None
    assert (await listening.client.submit(SUBJECT)).status_code == 202
    assert SUBJECT not in listening.process.log_text


async def test_an_older_word_changes_nothing_and_a_repeated_one_neither(
    listening: Listening,
) -> None:
    one = (await listening.client.submit(SUBJECT)).json()["id"]
    job = uuid7()
    blocked = word(events.Blocked, one, job, 7, reasons={BlockReason.UNCOVERED: 2})
    await say(listening.kafka, blocked, blocked)
    await listening.reaches(one, "blocked")

    # The second word of another job tells when everything before it was consumed.
    other = (await listening.client.submit(SUBJECT)).json()["id"]
    await say(
        listening.kafka,
        word(events.Started, one, job, 6),
        blocked,
        word(events.Failed, other, uuid7(), 1, error="OSError"),
    )
    await listening.reaches(other, "failed")

    assert await listening.client.state(one) == "blocked"
    assert listening.ciphertext(one) is not None


async def test_a_refused_cancellation_silences_no_word_that_comes_late(
    listening: Listening,
) -> None:
    """As one does that was a dead letter and is replayed."""
    request = (await listening.client.submit(SUBJECT)).json()["id"]
    job = uuid7()
    await say(
        listening.kafka,
        word(events.Erased, request, job, 4),
        word(events.CancelRefused, request, job, 6),
        word(events.Verified, request, job, 5),
    )
    await listening.reaches(request, "verified")

    assert listening.ciphertext(request) is None


async def test_what_is_not_ours_is_set_aside_and_the_partition_moves_on(
    listening: Listening,
) -> None:
    request = (await listening.client.submit(SUBJECT)).json()["id"]
    good = encode(word(events.Started, request, uuid7(), 2))
    key = REF.encode()
    headers = dict(good.headers)

    def changed(**changes: bytes) -> list[tuple[str, bytes]]:
        fresh = {"ce_id": str(uuid7()).encode()}
        return list({**headers, **fresh, **changes}.items())

    poison: dict[str, Raw] = {
        "no headers": (EVENTS, key, b"whatever", []),
        "bad JSON": (EVENTS, key, b'{"job_id": ', changed()),
        "unknown type": (EVENTS, key, good.value, changed(ce_type=b"com.example.other.v1")),
        "unknown version": (
            EVENTS,
            key,
            good.value,
            changed(ce_type=b"lethe.erasure.started.v99"),
        ),
        "no value": (EVENTS, key, None, changed()),
    }
    topic = dead_letter_topic(EVENTS)
    consumer = AIOKafkaConsumer(bootstrap_servers=listening.kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, n) for n in range(16)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        for partition in partitions:
            await consumer.position(partition)

        await publish(
            listening.kafka, [*poison.values(), (EVENTS, key, good.value, list(good.headers))]
        )
        await listening.reaches(request, "running")

        found: list[Any] = []
        while len(found) < len(poison):
            polled = await consumer.getmany(timeout_ms=10_000)
            assert polled
            found += [record for records in polled.values() for record in records]
    finally:
        await consumer.stop()

    reasons = [dict(record.headers)["error-reason"].decode() for record in found]
    assert reasons == [
        "not_ours",
        "invalid_event",
        "unknown_type",
        "unknown_version",
        "invalid_event",
    ]
    assert [record.value for record in found] == [value for _, _, value, _ in poison.values()]
    assert {record.key for record in found} == {key}


async def test_a_word_about_a_request_nobody_knows_is_let_pass(listening: Listening) -> None:
    request = (await listening.client.submit(SUBJECT)).json()["id"]
    await say(
        listening.kafka,
        word(events.Started, str(uuid7()), uuid7(), 1),
        word(events.Started, request, uuid7(), 1),
    )
    await listening.reaches(request, "running")
