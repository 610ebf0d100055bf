"""Initialising consumer groups explicitly, because runners never choose an offset by themselves."""

from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError

from lethe_outbox.errors import GroupAtWorkError, TopicMissingError
from lethe_outbox.kafka.brokers import Bootstrap, client_arguments
from lethe_outbox.kafka.clients import started, stopped
from lethe_outbox.kafka.offset_answers import hearing_refusals
from lethe_outbox.kafka.topics import partition_counts, refusals_in_words, waiting_for_broker


async def initialise_group(
    bootstrap: Bootstrap, group: str, topics: Sequence[str], *, give_up_seconds: float = 300
) -> int:
    """Give `group` the offset of the beginning wherever it has none, and say how many there were.

    Existing offsets are never touched; safe to repeat. It waits for the broker.

    Raises:
        TopicMissingError: a topic does not exist.
        GroupAtWorkError: the group lacks an offset and has members.
        BrokerAwayError: the broker did not answer for `give_up_seconds`, or refused.
    """
    initialised = 0
    with refusals_in_words():
        async for attempt in waiting_for_broker(give_up_seconds):
            with attempt:
                initialised = await _initialise(bootstrap, group, topics)
    return initialised


async def _initialise(bootstrap: Bootstrap, group: str, topics: Sequence[str]) -> int:
    counts = await partition_counts(bootstrap, topics)
    for topic in topics:
        if topic not in counts:
            raise TopicMissingError(
                f"topic {topic} does not exist; the migration creates it (ensure_topics)"
            )
    partitions = [TopicPartition(topic, n) for topic in topics for n in range(counts[topic])]
    consumer = hearing_refusals(
        AIOKafkaConsumer(**client_arguments(bootstrap), group_id=group, enable_auto_commit=False)
    )
    await started(consumer)
    missing: list[TopicPartition] = []
    try:
        consumer.assign(partitions)
        missing = [one for one in partitions if await consumer.committed(one) is None]
        if missing:
            await consumer.commit(await consumer.beginning_offsets(missing))
    except CommitFailedError:
        raise GroupAtWorkError(
            f"group {group} lacks offsets of {', '.join(topics)} and has members: only a group of "
            "nobody can be given them; stop its members, then say this again"
        ) from None
    finally:
        await stopped(consumer)
    return len(missing)
