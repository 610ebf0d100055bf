"""Topics as a whole: read from end to end, and what an operator does to them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError
from aiokafka.protocol.group import LeaveGroupRequest

from lethe_outbox.kafka.topics import partition_counts
from tests.support.waiting import until


async def stream(bootstrap: str, topics: Sequence[str]) -> AsyncIterator[Any]:
    """Give every record that topics hold at this moment, partition by partition."""
    counts = await partition_counts(bootstrap, topics)
    partitions = [TopicPartition(topic, n) for topic in topics for n in range(counts[topic])]
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    ) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                polled = await consumer.getmany(partition, timeout_ms=1000)
                for record in polled.get(partition, []):
                    yield record


async def read_raw(bootstrap: str, topics: Sequence[str]) -> list[Any]:
    """Read every record that topics hold at this moment."""
    return [record async for record in stream(bootstrap, topics)]


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def configure(bootstrap: str, name: str, config: Mapping[str, str]) -> None:
    """Give a topic these settings, and no others."""
    async with _admin(bootstrap) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, name, dict(config))
        for answer in await admin.alter_configs([resource]):
            assert [one[0] for one in answer.resources] == [0], answer


async def delete(bootstrap: str, name: str) -> None:
    """Delete a topic with its records, and wait until the broker has forgotten it."""
    async with _admin(bootstrap) as admin:
        await admin.delete_topics([name])

    async def gone() -> bool:
        return name not in await partition_counts(bootstrap, [name])

    await until(gone, what="a topic that is gone")


async def skip_to_end(bootstrap: str, group: str, topics: Sequence[str]) -> None:
    """Let a group begin behind everything that its topics hold: what other tests left there.

    Members that are still in the group were killed: they are put out.
    """
    counts = await partition_counts(bootstrap, topics)
    partitions = [TopicPartition(topic, n) for topic in topics for n in range(counts[topic])]
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
    ) as consumer:
        consumer.assign(partitions)

        async def committed() -> bool:
            try:
                await consumer.commit(await consumer.end_offsets(partitions))
            except CommitFailedError:
                await evict(bootstrap, group)
                return False
            return True

        await until(committed, within=60, every=0.1, what="a group without members")


async def evict(bootstrap: str, group: str) -> None:
    """Put a group's members out now, as the broker does some seconds after they were killed."""
    async with _admin(bootstrap) as admin:
        node = await admin.find_coordinator(group)
        [answer] = await admin.describe_consumer_groups([group], node)
        [described] = answer.to_object()["groups"]
        for member in described["members"]:
            leave = LeaveGroupRequest(group, member["member_id"])
            assert (await admin._send_request_to_node(node, leave)).error_code == 0
