"""The consumer runner on real servers: each event's effect once, whatever goes wrong."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from lethe_outbox import (
    AutocommitError,
    GroupAtWorkError,
    Inbox,
    OffsetsLostError,
    Record,
    dead_letter_topic,
    initialise_group,
)
from lethe_outbox.message import EVENT_ID_HEADER
from lethe_outbox.redis_fast_path import RedisFastPath
from tests.integration.outbox.conftest import Publish, ReadAll
from tests.integration.outbox.consuming import (
    SETTINGS,
    Harness,
    Spoil,
    dead_letter_topic_for,
    effects,
    ended_by_hand,
    key_of,
    note,
    running,
    swallowed,
)
from tests.support.factories import TopicFactory
from tests.support.runbooks import looked_for
from tests.support.waiting import until


async def test_an_event_takes_effect_once_however_often_it_is_published(
    harness: Harness, publish: Publish
) -> None:
    event_id = uuid7()
    for _ in range(3):
        await publish(harness.topic, b"paid", event_id=event_id)
    async with running(harness.runner()):
        await until(lambda: harness.count("handled") + harness.count("duplicate") == 3)
    assert await effects(harness.engine) == ["paid"]


async def test_a_poison_record_hurts_only_itself(
    harness: Harness, publish: Publish, read_all: ReadAll
) -> None:
    for value in (b"1", b"poison", b"2", b"3"):
        await publish(harness.topic, value)
    async with running(harness.runner()):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 3)
    assert await effects(harness.engine) == ["1", "2", "3"]
    (dead,) = await read_all(dead_letter_topic(harness.topic))
    headers = dict(dead.headers)
    assert (dead.value, dead.key) == (b"poison", b"k")
    assert headers["error-reason"] == b"of_the_test"
    assert headers["error-refused-by"] == harness.group.encode()
    assert headers["origin-topic"] == harness.topic.encode()
    assert headers["origin-offset"] == b"1"
    assert UUID(headers["ce_id"].decode())


async def test_a_record_that_is_not_ours_goes_aside_with_its_bytes(
    harness: Harness, publish: Publish, read_all: ReadAll
) -> None:
    await publish(harness.topic, b"\x00\xff", headers=())
    await publish(harness.topic, b"fine")
    async with running(harness.runner()):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 1)
    (dead,) = await read_all(dead_letter_topic(harness.topic))
    assert dead.value == b"\x00\xff"
    assert dict(dead.headers)["error-reason"] == b"not_ours"


async def test_a_record_of_nothing_but_headers_goes_aside_too(
    harness: Harness, kafka: str, publish: Publish, read_all: ReadAll
) -> None:
    """Kafka takes neither key nor value, and aiokafka's `send` would not."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=None, headers=[("theirs", None)])
        await (await producer.send_batch(batch, harness.topic, partition=0))
    await publish(harness.topic, b"fine", key=key_of(0))
    async with running(harness.runner()):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 1)
    (dead,) = await read_all(dead_letter_topic(harness.topic))
    assert (dead.key, dead.value, dead.headers[0]) == (None, None, ("theirs", None))


async def test_an_event_that_its_producer_took_back_has_no_effect(
    harness: Harness, kafka: str
) -> None:
    async def publish(value: bytes) -> None:
        event_id = (EVENT_ID_HEADER, str(uuid7()).encode())
        await producer.send_and_wait(harness.topic, value, key=key_of(0), headers=[event_id])

    name = f"producer-{harness.topic}"
    async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=name) as producer:
        await producer.begin_transaction()
        await publish(b"taken back")
        await producer.abort_transaction()
        async with producer.transaction():
            await publish(b"kept")
    async with running(harness.runner()):
        await until(lambda: harness.count("handled") > 0)
    assert await effects(harness.engine) == ["kept"]


async def test_a_defect_of_the_handler_is_tried_a_few_times_and_then_goes_aside(
    harness: Harness, publish: Publish, read_all: ReadAll
) -> None:
    await publish(harness.topic, b"defect")
    await publish(harness.topic, b"fine")
    async with running(harness.runner()):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 1)
    (dead,) = await read_all(dead_letter_topic(harness.topic))
    headers = dict(dead.headers)
    assert headers["error-reason"] == b"handler_failed"
    assert headers["error-class"] == b"KeyError"
    assert headers["error-attempts"] == b"3"


async def test_what_is_transient_is_tried_again_in_place_and_in_order(
    harness: Harness, publish: Publish
) -> None:
    failures = Counter[str]()

    async def flaky(connection: AsyncConnection, records: Sequence[Record]) -> None:
        failures["calls"] += 1
        if failures["calls"] <= 4:
            raise OperationalError("statement", {}, Exception("the database went away"))
        await note(connection, records)

    for value in (b"1", b"2", b"3"):
        await publish(harness.topic, value)
    async with running(harness.runner(flaky)):
        await until(lambda: harness.count("handled") == 3)
    assert await effects(harness.engine) == ["1", "2", "3"]
    assert harness.count("dead_lettered") == 0


async def test_nothing_but_speed_changes_without_redis(harness: Harness, publish: Publish) -> None:
    fast_path = RedisFastPath("redis://127.0.0.1:1/0", harness.metrics)
    event_id = await publish(harness.topic, b"paid")
    await publish(harness.topic, b"paid", event_id=event_id)
    async with running(harness.runner(inbox=Inbox(fast_path=fast_path))):
        await until(lambda: harness.count("handled") + harness.count("duplicate") == 2)
    await fast_path.close()
    assert await effects(harness.engine) == ["paid"]
    errors = harness.registry.get_sample_value(
        "outbox_inbox_fast_path_errors_total", {"group": harness.group}
    )
    assert errors


async def test_redis_knows_only_what_was_committed(
    harness: Harness, publish: Publish, redis_url: str
) -> None:
    fast_path = RedisFastPath(redis_url, harness.metrics)
    good = await publish(harness.topic, b"fine")
    bad = await publish(harness.topic, b"poison")
    async with running(harness.runner(inbox=Inbox(fast_path=fast_path))):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 1)
    assert await fast_path.known(harness.group, [good, bad]) == {good}
    await fast_path.close()


async def test_a_dead_letter_topic_that_cannot_be_written_blocks_its_partition_only(
    engine: AsyncEngine,
    kafka: str,
    topic: TopicFactory,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A producer waits so long for a topic that is not there before it gives up.
    monkeypatch.setattr("lethe_outbox.kafka.dead_letter_topic._DEADLINE_SECONDS", 2.0)
    name = await topic("orders", partitions=2)
    harness = Harness(engine, kafka, name)  # without its dead-letter topic
    await initialise_group(kafka, harness.group, [name])
    keys = {partition: key_of(partition) for partition in (0, 1)}
    await publish(name, b"poison", key=keys[0])
    await publish(name, b"behind it", key=keys[0])
    await publish(name, b"elsewhere", key=keys[1])
    async with running(harness.runner()):
        await until(lambda: harness.gauge("outbox_consumer_blocked_partitions") == 1, within=60)
        await until(lambda: harness.count("handled") == 1)
        assert await effects(engine) == ["elsewhere"]
        assert looked_for("ConsumerPartitionBlocked") in caplog.text
        assert "partition 0" in caplog.text
        assert "at offset 0" in caplog.text
        await dead_letter_topic_for(kafka, name)
        await until(lambda: harness.count("handled") == 2, within=60)
    assert await effects(engine) == ["elsewhere", "behind it"]
    assert harness.gauge("outbox_consumer_blocked_partitions") == 0


async def test_a_group_without_offsets_stops_instead_of_choosing(
    engine: AsyncEngine,
    kafka: str,
    topic: TopicFactory,
    publish: Publish,
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness = Harness(engine, kafka, await topic("orders", partitions=2))
    await publish(harness.topic, b"paid")
    stop = asyncio.Event()
    task = asyncio.create_task(harness.runner().run(stop))
    name, labels = "outbox_consumer_offsets_lost", {"group": harness.group}
    await until(lambda: harness.registry.get_sample_value(name, labels) == 1)
    assert not task.done()  # it stays, so that the gauge is scraped
    assert looked_for("ConsumerOffsetsLost") in caplog.text
    stop.set()
    with pytest.raises(OffsetsLostError, match=r"no usable offset .*\(initialise_group\)"):
        await asyncio.wait_for(task, 20)
    assert await effects(engine) == []


async def test_initialising_a_group_again_moves_nothing(
    harness: Harness, publish: Publish, kafka: str
) -> None:
    await publish(harness.topic, b"1")
    async with running(harness.runner()):
        await until(lambda: harness.count("handled") == 1)
    assert await initialise_group(kafka, harness.group, [harness.topic]) == 0
    async with running(harness.runner()):
        await publish(harness.topic, b"2")
        await until(lambda: harness.count("handled") == 2)
    assert harness.count("duplicate") == 0


async def test_a_group_at_work_is_given_no_offset(
    harness: Harness, kafka: str, topic: TopicFactory
) -> None:
    another = await topic("made-later", partitions=1)
    async with running(harness.runner()):
        await until(lambda: harness.gauge("outbox_consumer_lag") is not None, what="a member")
        with pytest.raises(GroupAtWorkError, match="stop its members"):
            await initialise_group(kafka, harness.group, [another])
    assert await initialise_group(kafka, harness.group, [another]) == 1


async def one_is_spoilt(
    harness: Harness, publish: Publish, read_all: ReadAll, spoil: Spoil
) -> bytes:
    """Let the handler of one record of three end so; the others are handled. Gives its error."""

    async def spoiling(connection: AsyncConnection, records: Sequence[Record]) -> None:
        await note(connection, records)
        if any(record.value == b"spoilt" for record in records):
            await spoil(connection)

    for value in (b"1", b"spoilt", b"2"):
        await publish(harness.topic, value)
    async with running(harness.runner(spoiling)):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 2)
    assert await effects(harness.engine) == ["1", "2"]
    (dead,) = await read_all(dead_letter_topic(harness.topic))
    assert dead.value == b"spoilt"
    return bytes(dict(dead.headers)["error-class"])


@pytest.mark.parametrize(
    ("spoil", "error_class"),
    [
        (swallowed, b"InternalError"),
        (AsyncConnection.rollback, b"InvalidRequestError"),
        (ended_by_hand, b"TransactionError"),
    ],
)
async def test_what_a_handler_s_transaction_cannot_keep_is_not_taken_for_handled(
    harness: Harness,
    publish: Publish,
    read_all: ReadAll,
    spoil: Spoil,
    error_class: bytes,
) -> None:
    """PostgreSQL answers COMMIT with a rollback, and no error, after a statement failed."""
    assert await one_is_spoilt(harness, publish, read_all, spoil) == error_class


async def test_a_handler_that_ends_as_cancelled_hurts_only_its_record(
    harness: Harness, publish: Publish, read_all: ReadAll
) -> None:
    """As one does that awaits a task of its own which somebody cancelled."""

    async def waiting(_connection: AsyncConnection) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    assert await one_is_spoilt(harness, publish, read_all, waiting) == b"HandlerCancelledError"


async def test_a_handler_that_commits_itself_loses_and_doubles_nothing(
    harness: Harness, publish: Publish
) -> None:
    async def committing(connection: AsyncConnection, records: Sequence[Record]) -> None:
        await note(connection, records)
        await connection.commit()

    for value in (b"1", b"2"):
        await publish(harness.topic, value)
    async with running(harness.runner(committing)):
        await until(lambda: harness.count("duplicate") == 2)
    assert await effects(harness.engine) == ["1", "2"]


async def test_an_engine_in_autocommit_is_refused_before_it_loses_anything(
    harness: Harness, publish: Publish, read_all: ReadAll
) -> None:
    """The inbox would keep what was noted of an event whose handler failed."""
    await publish(harness.topic, b"1", event_id=uuid7())
    usual = harness.engine
    harness.engine = usual.execution_options(isolation_level="AUTOCOMMIT")
    with pytest.raises(AutocommitError):
        await asyncio.wait_for(harness.runner().run(asyncio.Event()), 20)
    harness.engine = usual
    async with running(harness.runner()):
        await until(lambda: harness.count("handled") == 1)
    assert await effects(usual) == ["1"]
    assert await read_all(dead_letter_topic(harness.topic)) == []


async def test_a_value_that_the_database_never_takes_hurts_only_its_record(
    harness: Harness, publish: Publish
) -> None:
    """SQLAlchemy calls it an OperationalError, as it does a server that is away."""
    async with harness.engine.begin() as connection:
        await connection.execute(text("CREATE INDEX ON effect (value)"))
    too_long_for_an_index = b"".join(uuid4().hex.encode() for _ in range(500))
    for key, value in ((0, b"1"), (0, too_long_for_an_index), (0, b"2"), (1, b"3")):
        await publish(harness.topic, value, key=key_of(key))
    async with running(harness.runner()):
        await until(lambda: harness.count("dead_lettered") == 1 and harness.count("handled") == 3)
    assert sorted(await effects(harness.engine)) == ["1", "2", "3"]


async def test_a_database_that_takes_no_writes_for_a_while_makes_no_dead_letter(
    harness: Harness, publish: Publish
) -> None:
    """As a standby does after a failover, and a server that somebody set so."""
    database = harness.engine.url.database
    read_only = text(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    async with harness.engine.begin() as connection:
        await connection.execute(read_only)
    await harness.engine.dispose()
    await publish(harness.topic, b"1")
    labels = {"group": harness.group, "topic": harness.topic}
    async with running(harness.runner()):
        tries = SETTINGS.attempts
        await until(
            lambda: (
                (harness.registry.get_sample_value("outbox_consumer_retries_total", labels) or 0)
                > tries
            )
        )
        assert harness.count("dead_lettered") == 0
        async with harness.engine.begin() as connection:
            await connection.execute(text("SET TRANSACTION READ WRITE"))
            await connection.execute(
                text(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')
            )
        await harness.engine.dispose()
        await until(lambda: harness.count("handled") == 1)
    assert await effects(harness.engine) == ["1"]
