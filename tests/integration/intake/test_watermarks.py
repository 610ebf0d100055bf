"""Control watermarks: what the eraser may believe itself to know, and up to when."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_contracts.codec import Envelope, decode
from lethe_contracts.events import Event, Watermark
from lethe_contracts.subject import SubjectRefs
from lethe_contracts.topics import PARTITIONS
from lethe_intake.metrics import IntakeMetrics
from lethe_intake.storage import MIGRATIONS, VERSION_TABLE, IntakeStorage, Ticked
from lethe_intake.watermark import Watermarks
from lethe_outbox import BUCKETS, Message, Outbox, bucket_of
from lethe_outbox.message import unpack_headers
from lethe_runtime.database import DatabaseProbe, create_engine
from tests.support.waiting import until

from .conftest import Intake

RARELY = timedelta(hours=1)
ALWAYS = timedelta(0)


@pytest.fixture
async def engine(intake_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(intake_url, application_name="test")
    async with engine.begin() as connection:
        await connection.execute(text("truncate lethe.outbox_dead"))
        await connection.execute(
            text("update lethe.control_tick set sequence = 0, written_at = '-infinity'")
        )
    yield engine
    await engine.dispose()


@pytest.fixture
def storage(engine: AsyncEngine) -> IntakeStorage:
    return IntakeStorage(engine, Outbox("lethe"), ZoneInfo("Asia/Seoul"))


async def written(engine: AsyncEngine) -> list[tuple[str, Envelope[Event]]]:
    query = text("select key, headers, payload from lethe.outbox order by id")
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    found = [(key, decode(unpack_headers(headers), payload)) for key, headers, payload in rows]
    return [pair for pair in found if isinstance(pair[1].event, Watermark)]


def settled(envelopes: list[tuple[str, Envelope[Event]]]) -> dict[int, datetime]:
    found: dict[int, datetime] = {}
    for _, envelope in envelopes:
        assert isinstance(envelope.event, Watermark)
        assert not found.keys() & envelope.event.settled_until.keys()
        found |= envelope.event.settled_until
    return found


async def test_a_round_speaks_of_every_bucket_in_the_partition_of_the_bucket(
    engine: AsyncEngine, storage: IntakeStorage
) -> None:
    ticked = await storage.watermark(RARELY)
    round_ = await written(engine)
    assert ticked is not None
    assert ticked.unsettled_buckets == 0
    assert len(round_) == PARTITIONS
    assert settled(round_).keys() == set(range(BUCKETS))
    for key, envelope in round_:
        assert isinstance(envelope.event, Watermark)
        partition = bucket_of(key) % PARTITIONS
        assert {bucket % PARTITIONS for bucket in envelope.event.settled_until} == {partition}
        assert key == envelope.subject_ref
        assert envelope.sequence == 1


async def test_several_instances_write_one_round(
    engine: AsyncEngine, storage: IntakeStorage
) -> None:
    rounds = await asyncio.gather(*(storage.watermark(RARELY) for _ in range(5)))
    assert sum(one is not None for one in rounds) == 1
    assert len(await written(engine)) == PARTITIONS
    assert await storage.watermark(ALWAYS) is not None
    sequences = [envelope.sequence for _, envelope in await written(engine)]
    assert sequences == [1] * PARTITIONS + [2] * PARTITIONS


async def test_a_database_that_takes_no_writes_for_a_while_ends_no_loop(
    engine: AsyncEngine, intake_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a standby does that a failover's address leads to."""
    standby = create_async_engine(
        intake_url, connect_args={"options": "-c default_transaction_read_only=on"}
    )
    storage = IntakeStorage(standby, Outbox("lethe"), ZoneInfo("Asia/Seoul"))
    asked: list[timedelta] = []
    real = storage.watermark

    async def watermark(every: timedelta) -> Ticked | None:
        asked.append(every)
        return await real(every)

    monkeypatch.setattr(storage, "watermark", watermark)
    probe = DatabaseProbe(engine, MIGRATIONS, VERSION_TABLE)
    await probe.ask()
    stop = asyncio.Event()
    loop = Watermarks(storage, IntakeMetrics(CollectorRegistry()), probe, seconds=0.05)
    running = asyncio.create_task(loop.run(stop))
    await until(lambda: running.done() or len(asked) > 1, what="a second try")
    stop.set()
    await running
    await standby.dispose()
    assert await written(engine) == []


async def test_a_clock_that_was_ahead_silences_no_round(
    engine: AsyncEngine, storage: IntakeStorage
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.control_tick set written_at = now() + interval '1 hour'")
        )
    assert await storage.watermark(RARELY) is not None
    assert await storage.watermark(RARELY) is None


async def test_a_request_that_is_not_in_kafka_yet_is_not_behind_its_watermark(
    intake: Intake, key: str, engine: AsyncEngine, storage: IntakeStorage
) -> None:
    answer = await intake.post({"subject": "acct-000017", "reason": "withdrew"}, key)
    accepted = datetime.fromisoformat(answer.json()["accepted_at"])
    await storage.watermark(RARELY)
    found = settled(await written(engine))
    bucket = bucket_of(SubjectRefs(intake.ring).of("acct-000017"))
    assert found.pop(bucket) <= accepted
    assert min(found.values()) > accepted


async def test_a_bucket_with_an_unresolved_dead_letter_gets_no_watermark(
    engine: AsyncEngine, storage: IntakeStorage
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "insert into lethe.outbox_dead "
                "(id, created_at, event_id, bucket, topic, key, status, reason, held) "
                "values (1, now(), gen_random_uuid(), 7, 'erasure.requests.v1', 'k', 3, 'x', true)"
            )
        )
    ticked = await storage.watermark(RARELY)
    assert ticked is not None
    assert ticked.unsettled_buckets == 1
    assert set(range(BUCKETS)) - settled(await written(engine)).keys() == {7}


async def test_a_round_waits_for_no_open_submission_and_stops_none(
    engine: AsyncEngine, storage: IntakeStorage
) -> None:
    outbox = Outbox("lethe")
    async with engine.connect() as submitting:
        await outbox.append_async(submitting, Message("erasure.requests.v1", "somebody", b""))
        assert await storage.watermark(RARELY) is not None
        await submitting.rollback()


async def test_the_loop_writes_while_the_database_is_there_and_shows_it(
    engine: AsyncEngine, storage: IntakeStorage
) -> None:
    registry = CollectorRegistry()
    probe = DatabaseProbe(engine, MIGRATIONS, VERSION_TABLE)
    await probe.ask()
    loop = Watermarks(storage, IntakeMetrics(registry), probe, seconds=0.05)
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop))

    async def twice() -> bool:
        return len(await written(engine)) >= 2 * PARTITIONS

    await until(twice, what="two rounds")
    stop.set()
    await running
    shown = registry.get_sample_value("intake_watermark_timestamp_seconds")
    assert shown is not None
    assert shown > 0
    assert registry.get_sample_value("intake_unsettled_buckets") == 0
