"""A group at work on a real broker while members join, and while its topic is made anew."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NotCoordinatorForGroupError
from aiokafka.protocol.commit import OffsetFetchRequest, OffsetFetchResponse_v3
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_outbox import (
    ConsumerRunner,
    Inbox,
    OffsetsLostError,
    Record,
    TopicSpec,
    ensure_topics,
    initialise_group,
)
from lethe_outbox.consumer import polling
from tests.integration.outbox.conftest import Publish
from tests.integration.outbox.consuming import SETTINGS, Harness, key_of, note, running
from tests.support.topics import delete, skip_to_end
from tests.support.waiting import until

# Long beside the time between two records: each member waits for one nearly all the time.
WAITING = replace(SETTINGS, poll_seconds=2)


async def test_records_that_come_while_a_member_joins_are_handled(
    harness: Harness, kafka: str, publish: Publish
) -> None:
    joined: list[frozenset[int]] = []
    second = ConsumerRunner(
        harness.engine,
        kafka,
        harness.group,
        [harness.topic],
        note,
        Inbox(),
        harness.metrics,
        settings=WAITING,
        on_assigned=joined.append,
    )
    sent = 0

    async def shared() -> bool:
        nonlocal sent
        await publish(harness.topic, b"one", key=key_of(sent % 2))
        sent += 1
        return any(len(partitions) == 1 for partitions in joined)

    async with running(harness.runner(settings=WAITING)):
        await until(lambda: harness.gauge("outbox_consumer_lag") is not None, what="a member")
        async with running(second):
            await until(shared, every=0.3, what="each has a partition")
            await until(lambda: harness.count("handled") == sent, what="every record")


async def test_a_topic_made_anew_is_seen_and_its_offsets_are_told_lost(
    harness: Harness, kafka: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_METADATA_SECONDS", 1)
    stop = asyncio.Event()
    task = asyncio.create_task(harness.runner().run(stop))
    await publish(harness.topic, b"one")
    await until(lambda: harness.count("handled") == 1, what="the first record")
    await delete(kafka, harness.topic)
    await ensure_topics(kafka, [TopicSpec(harness.topic, partitions=2)])
    name, labels = "outbox_consumer_offsets_lost", {"group": harness.group}
    await until(lambda: harness.registry.get_sample_value(name, labels) == 1, what="offsets lost")
    stop.set()
    with pytest.raises(OffsetsLostError):
        await asyncio.wait_for(task, 20)


async def test_a_member_that_was_put_out_amid_a_batch_does_not_move_offsets_back(
    harness: Harness, kafka: str, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    """The group is empty when the member comes to its commit: a broker would take anybody's."""
    handled: list[list[bytes | None]] = []
    amid, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: AsyncConnection, records: Sequence[Record]) -> None:
        del connection
        handled.append([record.value for record in records])
        amid.set()
        await may_go_on.wait()
        if len(handled) == 1:
            raise PoolTimeoutError("all is tried again, from the offset of before")

    async with running(harness.runner(slow, settings=replace(SETTINGS, session_seconds=6))):
        await publish(harness.topic, b"before", key=key_of(0))
        await amid.wait()
        await skip_to_end(kafka, harness.group, [harness.topic])
        await until(lambda: "member_id was not recognized" in caplog.text, what="put out")
        may_go_on.set()
        await publish(harness.topic, b"after", key=key_of(0))
        await until(lambda: len(handled) > 1, what="another batch")
    assert handled == [[b"before"], [b"after"]]


async def test_a_coordinator_that_moves_has_lost_no_offsets(
    harness: Harness, kafka: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the second after a broker is back it refuses to say them, which is not to have none."""
    await publish(harness.topic, b"1")
    async with running(harness.runner()):
        await until(lambda: harness.count("handled") == 1)
    send, refused = AIOKafkaClient.send, 0

    async def moving(client: AIOKafkaClient, node: int, request: Any, **how: Any) -> Any:
        nonlocal refused
        if isinstance(request, OffsetFetchRequest) and refused < 2:
            refused += 1
            return OffsetFetchResponse_v3(0, [], NotCoordinatorForGroupError.errno)
        return await send(client, node, request, **how)

    monkeypatch.setattr(AIOKafkaClient, "send", moving)
    assert await initialise_group(kafka, harness.group, [harness.topic]) == 0
    assert refused == 2
    refused = 0
    async with running(harness.runner()):
        await publish(harness.topic, b"2")
        await until(lambda: harness.count("handled") == 2)
    assert refused == 2
    assert harness.count("duplicate") == 0
