"""A legal hold that is stuck anywhere between intake and the eraser stops its person.

Intake's outbox, a relay, Kafka and the eraser's consumer are the real ones; at each place on the
way the hold is stopped in turn, and only then somebody tries to erase the person.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from lethe_contracts.codec import Envelope, encode
from lethe_contracts.events import Held
from lethe_contracts.sources import INTAKE
from lethe_contracts.topics import MAX_MESSAGE_BYTES, REQUESTS
from lethe_eraser.consumer import Acceptance
from lethe_eraser.execute.worker import utc_now
from lethe_eraser.storage import control
from lethe_eraser.storage.events import Announcer
from lethe_intake import storage as intake_storage
from lethe_intake.storage import IntakeStorage
from lethe_outbox import (
    ConsumerMetrics,
    ConsumerRunner,
    Inbox,
    Message,
    Outbox,
    bucket_of,
    ensure_topics,
)
from lethe_outbox.consumer.runner import ConsumerSettings
from lethe_relay.topics import specs
from lethe_runtime import database
from lethe_sandbox.stack import Addresses
from tests.integration.eraser.world import CONTROL_FRESH, OTHER, REF, SUBJECT, World, to_the_end
from tests.support.databases import create, own_database
from tests.support.outbox_world import QUICK, running, statuses
from tests.support.topics import skip_to_end
from tests.support.waiting import until

OTHER_REF = next(ref for ref in map("1.{}".format, range(999)) if bucket_of(ref) != bucket_of(REF))
NOON = timedelta(hours=12)
SETTINGS = replace(QUICK, hold_back_topics=frozenset({REQUESTS}))
NOW = timedelta(0)


@dataclass(slots=True)
class UnwritableTopic:
    """A dead-letter topic that takes nothing until it is mended."""

    mended: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    taken: int = 0

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        del topic, key, value, headers
        self.asked += 1
        if not self.mended.is_set():
            raise KafkaError
        self.taken += 1

    async def close(self) -> None:
        pass


@dataclass(slots=True)
class Company:
    """Intake with its outbox, and the eraser of `World` behind Kafka."""

    url: str
    engine: AsyncEngine
    storage: IntakeStorage
    world: World
    kafka: str
    group: str

    async def hold(self, *, padding: int = 0, broken: bool = False) -> None:
        """Place a hold on `SUBJECT`, as intake writes it."""
        event_id = uuid7()
        encoded = encode(
            Envelope(
                id=event_id,
                source=INTAKE,
                aggregate=uuid7(),
                sequence=1,
                time=utc_now(),
                subject_ref=REF,
                event=Held(hold_id=uuid7()),
            )
        )
        value = b"{" if broken else encoded.value + b" " * padding
        message = Message(REQUESTS, encoded.key, value, encoded.headers, event_id=event_id)
        async with self.engine.begin() as connection:
            await Outbox("lethe").append_async(connection, message)

    async def watermark(self) -> None:
        assert await self.storage.watermark(NOW) is not None

    @asynccontextmanager
    async def listening(self, dead_letters: UnwritableTopic | None = None) -> AsyncIterator[None]:
        """The eraser's consumer."""
        outbox = Outbox("lethe")
        acceptance = Acceptance(
            self.world.cipher, Announcer(outbox), self.world.window, self.world.clock
        )
        runner = ConsumerRunner(
            self.world.engine,
            self.kafka,
            self.group,
            [REQUESTS],
            acceptance.handle,
            Inbox("lethe"),
            ConsumerMetrics(CollectorRegistry()),
            settings=ConsumerSettings(),
            on_dead_letter=acceptance.set_aside,
            dead_letters=dead_letters,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(runner.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 60)

    async def reached(self, ref: str) -> None:
        """Wait until the eraser has a fresh watermark of a bucket."""

        async def fresh() -> bool:
            query = (
                "select count(*) from lethe.watermark"
                " where bucket = :b and settled_until > now() - interval '1 minute'"
            )
            return bool(await self.world.value(query, b=bucket_of(ref)))

        await until(fresh, within=60, what="a watermark")

    async def erases(self, ref: str) -> bool:
        """Let the eraser do all that it would do now; says whether it erased this person."""
        await to_the_end(self.world, self.world.eraser())
        query = "select state from lethe.job where subject_ref = :ref"
        return bool(await self.world.value(query, ref=ref) == "verified")


@pytest.fixture(scope="module")
def intake_template(stack: Addresses) -> str:
    name = create(stack)
    url = stack.database_url(name)
    database.migrate(url, intake_storage.MIGRATIONS, intake_storage.VERSION_TABLE)
    return name


@pytest.fixture
def intake_url(stack: Addresses, intake_template: str) -> Iterator[str]:
    with own_database(stack, intake_template) as url:
        yield url


@pytest.fixture
async def company(world: World, intake_url: str, kafka: str) -> AsyncIterator[Company]:
    """Two people who wait for their erasure; what the eraser knows is from noon."""
    await ensure_topics(kafka, specs(replication_factor=1))
    group = f"eraser-{uuid4().hex}"
    await skip_to_end(kafka, group, [REQUESTS])
    await world.settled(ago=NOON)
    await world.sketch(1)
    await world.sketch(2, subject=OTHER)
    await world.accept(world.requested())
    await world.accept(world.requested(ref=OTHER_REF, subject=OTHER), ref=OTHER_REF)
    engine = database.create_engine(intake_url, application_name="test")
    async with database.disposing(engine):
        storage = IntakeStorage(engine, Outbox("lethe"), ZoneInfo("UTC"))
        yield Company(intake_url, engine, storage, world, kafka, group)


async def test_with_kafka_away_since_noon_nobody_is_erased(company: Company) -> None:
    await company.hold()
    async with running(company.url, "127.0.0.1:9", SETTINGS) as relay, company.listening():
        await relay.reach("relay_paused", 1)
        await company.watermark()
        assert not await company.erases(REF)
        assert not await company.erases(OTHER_REF)
    async with running(company.url, company.kafka, SETTINGS), company.listening():
        await company.watermark()
        await company.reached(OTHER_REF)
        await company.reached(REF)
        assert await company.erases(OTHER_REF)
        assert not await company.erases(REF)
    assert await company.world.value("select count(*) from lethe.hold") == 1


async def test_watermarks_that_waited_for_kafka_do_not_overtake_a_hold_that_is_refused(
    company: Company,
) -> None:
    """They were written while the hold waited, so they say nothing of what came after it."""
    await company.hold(padding=2 * MAX_MESSAGE_BYTES)
    await company.world.write("truncate lethe.watermark")
    async with company.engine.begin() as connection:
        await connection.exec_driver_sql(
            "update lethe.outbox set created_at = created_at - interval '10 minutes'"
        )
    await company.watermark()
    async with running(company.url, company.kafka, SETTINGS), company.listening():
        await company.reached(OTHER_REF)
        assert await company.erases(OTHER_REF)
        assert not await company.erases(REF)


async def test_a_hold_that_neither_its_topic_nor_the_dead_letter_topic_takes(
    company: Company,
) -> None:
    await company.hold(padding=2 * MAX_MESSAGE_BYTES)
    async with running(company.url, company.kafka, SETTINGS) as relay, company.listening():
        await relay.reach("relay_dlt_failed_total", 1, topic=REQUESTS)
        await company.watermark()
        await company.reached(OTHER_REF)
        assert await company.erases(OTHER_REF)
        assert not await company.erases(REF)
    assert await company.world.left_of(SUBJECT) != {}
    assert len([one for one in await statuses(company.engine) if one.name == "DLT_FAILED"]) == 1


async def test_a_hold_that_nobody_can_read(company: Company) -> None:
    await company.hold(broken=True)
    async with running(company.url, company.kafka, SETTINGS), company.listening():
        await company.watermark()
        await company.reached(OTHER_REF)
        await company.reached(REF)
        assert await company.erases(OTHER_REF)
        assert not await company.erases(REF)
    async with company.world.engine.begin() as connection:
        [aside] = await control.quarantined(connection)
        assert aside.record.bucket == bucket_of(REF)
        place = (aside.record.topic, aside.record.partition, aside.record.offset)
        assert await control.release(connection, place, by="Kim", note="placed again")
    await company.world.settled()
    assert await company.erases(REF)


async def test_a_hold_behind_a_record_whose_dead_letter_topic_takes_nothing(
    company: Company,
) -> None:
    stuck = Message(REQUESTS, REF, b"junk")
    async with company.engine.begin() as connection:
        await Outbox("lethe").append_async(connection, stuck)
    await company.hold()
    dead_letters = UnwritableTopic()
    async with (
        running(company.url, company.kafka, SETTINGS),
        company.listening(dead_letters),
    ):
        await until(lambda: dead_letters.asked > 0, within=60, what="the dead letter")
        await company.watermark()
        assert not await company.erases(REF)
        query = "select settled_until < now() - :fresh from lethe.watermark where bucket = :b"
        assert await company.world.value(query, fresh=CONTROL_FRESH, b=bucket_of(REF))

        dead_letters.mended.set()
        await company.reached(REF)
        assert not await company.erases(REF)
    assert await company.world.value("select count(*) from lethe.hold") == 1
