"""Initialising consumer groups explicitly, because runners never choose an offset by themselves."""

from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_exponential

from lethe_outbox.errors import PartitionCountError


async def initialise_group(
    bootstrap: str, group: str, topics: Sequence[str], *, give_up_seconds: float = 300
) -> int:
    """Give `group` the offset of the beginning wherever it has none, and say how many there were.

    Existing offsets are never touched; safe to repeat. It waits for the broker.

    Raises:
        PartitionCountError: a topic does not exist.
        KafkaError: the broker did not answer for `give_up_seconds`, or the group is at work and
            lacks an offset (stop its members first).
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception_type((KafkaError, OSError)),
        stop=stop_after_delay(give_up_seconds),
        wait=wait_exponential(multiplier=0.25, max=10),
        reraise=True,
    )
    initialised = 0
    async for attempt in retrying:
        with attempt:
            initialised = await _initialise(bootstrap, group, topics)
    return initialised


async def _initialise(bootstrap: str, group: str, topics: Sequence[str]) -> int:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        await consumer.topics()
        partitions: list[TopicPartition] = []
        for topic in topics:
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise PartitionCountError(f"topic {topic} does not exist; create it first")
            partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        missing = [one for one in partitions if await consumer.committed(one) is None]
        if missing:
            await consumer.commit(await consumer.beginning_offsets(missing))
    finally:
        await consumer.stop()
    return len(missing)
