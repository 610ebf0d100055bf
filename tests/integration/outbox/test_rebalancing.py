"""A group at work on a real broker while members join, and while its topic is made anew."""

import asyncio
from dataclasses import replace

import pytest

from lethe_outbox import ConsumerRunner, Inbox, OffsetsLostError, TopicSpec, ensure_topics, polling
from tests.integration.outbox.conftest import Publish
from tests.integration.outbox.consuming import SETTINGS, Harness, key_of, note, running
from tests.support.topics import delete
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
