"""What a live topic must be like for the promises of its consumers, asked of a real broker."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from os import urandom
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from lethe_outbox import (
    PoisonError,
    Record,
    TopicSpec,
    dead_letter_topic,
    ensure_topics,
    initialise_group,
)
from lethe_outbox.errors import DeadLetterTopicError, RetentionError, TopicMissingError
from lethe_outbox.kafka.dead_letter_topic import DeadLetterProducer
from lethe_outbox.kafka.topic_settings import TopicSettingsProbe
from lethe_outbox.message import EVENT_ID_HEADER
from tests.integration.outbox.conftest import ReadAll
from tests.integration.outbox.consuming import Harness, running
from tests.support.factories import TopicFactory
from tests.support.waiting import until

LIMIT = 100_000
HEADROOM = 65_536
DAY = timedelta(days=1)


async def made(
    kafka: str,
    *,
    dead: int | None,
    retention: timedelta | None = 7 * DAY,
    dead_config: Mapping[str, str] | None = None,
) -> str:
    name = f"orders.{uuid4().hex}"
    kept = "-1" if retention is None else str(int(retention.total_seconds() * 1000))
    config = {"max.message.bytes": str(LIMIT), "retention.ms": kept}
    specs = [TopicSpec(name, 1, config)]
    if dead is not None:
        theirs = {"max.message.bytes": str(dead), **(dead_config or {})}
        specs.append(TopicSpec(dead_letter_topic(name), 1, theirs))
    await ensure_topics(kafka, specs)
    return name


async def test_topics_as_agreed_are_let_through(kafka: str) -> None:
    name = await made(kafka, dead=LIMIT + HEADROOM)
    await TopicSettingsProbe(kafka, [name], 8 * DAY).ask()


async def test_a_dead_letter_topic_that_is_a_byte_too_small_is_refused(kafka: str) -> None:
    name = await made(kafka, dead=LIMIT + HEADROOM - 1)
    with pytest.raises(DeadLetterTopicError, match=str(LIMIT + HEADROOM)) as refused:
        await TopicSettingsProbe(kafka, [name], 8 * DAY).ask()
    # Which of the two is wrong, only a person knows.
    assert f"max.message.bytes of {name}.DLT to {LIMIT + HEADROOM}" in str(refused.value)
    assert f"or, if that of {name} was raised by mistake, set that one back" in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("cleanup.policy", "compact", "cleanup.policy of {} to delete"),
        ("cleanup.policy", "compact,delete", "cleanup.policy of {} to delete"),
        ("retention.ms", str(7 * 86_400_000 - 1), "retention.ms of {} to -1"),
    ],
)
async def test_a_dead_letter_topic_that_would_lose_dead_letters_is_refused(
    kafka: str, setting: str, value: str, advice: str
) -> None:
    name = await made(kafka, dead=LIMIT + HEADROOM, dead_config={setting: value})
    with pytest.raises(DeadLetterTopicError, match=advice.format(f"{name}.DLT")):
        await TopicSettingsProbe(kafka, [name], 8 * DAY).ask()


@pytest.mark.parametrize("retention", [8 * DAY, None], ids=["as long", "for ever"])
async def test_a_topic_that_outlives_the_inbox_is_refused(
    kafka: str, retention: timedelta | None
) -> None:
    name = await made(kafka, dead=LIMIT + HEADROOM, retention=retention)
    with pytest.raises(RetentionError, match="8 days"):
        await TopicSettingsProbe(kafka, [name], 8 * DAY).ask()


async def test_a_topic_that_is_not_there_yet_is_waited_for(kafka: str) -> None:
    name = await made(kafka, dead=None)
    assert TopicMissingError in TopicSettingsProbe.TRANSIENT
    with pytest.raises(TopicMissingError, match="ensure_topics"):
        await TopicSettingsProbe(kafka, [name], 8 * DAY).ask()


async def test_the_largest_poison_record_fits_its_dead_letter_topic(
    engine: AsyncEngine, kafka: str, read_all: ReadAll
) -> None:
    async def refuse(connection: AsyncConnection, records: Sequence[Record]) -> None:
        del connection, records
        raise PoisonError("r" * 1000)

    name = await made(kafka, dead=LIMIT + HEADROOM)
    harness = Harness(engine, kafka, name)
    await initialise_group(kafka, harness.group, [name])
    value = await publish_largest(kafka, name)
    async with running(harness.runner(refuse)):
        await until(lambda: harness.count("dead_lettered") == 1)
    (dead,) = await read_all(dead_letter_topic(name))
    assert (dead.value, dead.key) == (value, b"k")
    headers = dict(dead.headers)
    assert headers["error-reason"] == b"r" * 256  # cut to what always fits
    assert headers["theirs"] == b"h" * 1000


async def test_the_sender_of_dead_letters_leaves_it_to_their_topic_what_is_too_large(
    kafka: str, topic: TopicFactory
) -> None:
    """A bound of its own below the topic's would have a partition stand still for ever."""
    value = urandom(33 * 1024 * 1024)
    taken, too_small = [
        await topic("large", partitions=1, config={"max.message.bytes": str(limit)})
        for limit in (len(value) + HEADROOM, len(value))
    ]
    sender = DeadLetterProducer(kafka)
    try:
        await sender.send(taken, b"k", value, [])
        with pytest.raises(MessageSizeTooLargeError):
            await sender.send(too_small, b"k", value, [])
    finally:
        await sender.close()


async def test_a_poison_record_that_its_topic_took_compressed_fits_too(
    engine: AsyncEngine, kafka: str, read_all: ReadAll
) -> None:
    async def refuse(connection: AsyncConnection, records: Sequence[Record]) -> None:
        del connection, records
        raise PoisonError("of_the_test")

    name = await made(kafka, dead=LIMIT + HEADROOM)
    harness = Harness(engine, kafka, name)
    await initialise_group(kafka, harness.group, [name])
    value = b"x" * 5 * LIMIT
    producer = AIOKafkaProducer(bootstrap_servers=kafka, compression_type="gzip")
    async with producer:
        event_id = (EVENT_ID_HEADER, str(uuid7()).encode())
        await producer.send_and_wait(name, value, key=b"k", headers=[event_id])
    async with running(harness.runner(refuse)):
        await until(lambda: harness.count("dead_lettered") == 1)
    (dead,) = await read_all(dead_letter_topic(name))
    assert dead.value == value


async def publish_largest(kafka: str, name: str) -> bytes:
    """Publish a record that its topic takes and that would be refused with one byte more."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=2 * LIMIT)
    await producer.start()
    headers = [(EVENT_ID_HEADER, str(uuid7()).encode()), ("theirs", b"h" * 1000)]
    value = urandom(LIMIT)
    elsewhere = await made(kafka, dead=None)

    async def is_too_large(size: int) -> bool:
        try:
            await producer.send_and_wait(elsewhere, value[:size], key=b"k", headers=headers)
        except MessageSizeTooLargeError:
            return True
        return False

    try:
        fits, too_large = 1, LIMIT
        while too_large - fits > 1:
            middle = (fits + too_large) // 2
            if await is_too_large(middle):
                too_large = middle
            else:
                fits = middle
        await producer.send_and_wait(name, value[:fits], key=b"k", headers=headers)
    finally:
        await producer.stop()
    return value[:fits]
