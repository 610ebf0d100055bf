"""A broker in memory: topics, their partitions and limits, and what was sent to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from aiokafka.errors import MessageSizeTooLargeError, UnknownTopicOrPartitionError
from aiokafka.partitioner import murmur2

from lethe_outbox.kafka.dead_letter_topic import HEADROOM_BYTES, dead_letter_topic
from lethe_outbox.record import ConsumedHeaders, event_id_of

DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588
"""Kafka's own default."""

_BATCH_OVERHEAD_BYTES: Final = 61 + 16
"""Of a batch of one record (KIP-98), nearly."""


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One record of a topic, with the fields of aiokafka's `ConsumerRecord`."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: ConsumedHeaders
    timestamp: int = 0

    @property
    def event_id(self) -> UUID | None:
        """The id of its event, None if it carries none."""
        return event_id_of(self.headers)

    def header(self, name: str) -> bytes | None:
        """Give a header's first value, None if there is none."""
        return next((value for found, value in self.headers if found == name), None)


@dataclass(slots=True)
class _Topic:
    partitions: int
    max_message_bytes: int
    records: list[MemoryRecord] = field(default_factory=list)


class MemoryBroker:
    """Topics in memory.

    Args:
        topics: created as by `create_topic`, with the defaults.
    """

    def __init__(self, *topics: str) -> None:
        self._topics: dict[str, _Topic] = {}
        for topic in topics:
            self.create_topic(topic)

    def create_topic(
        self,
        topic: str,
        *,
        partitions: int = 16,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        with_dead_letters: bool = True,
    ) -> None:
        """Create a topic, and its dead-letter topic with the headroom it needs.

        A topic that exists keeps its records and takes the new limit.
        """
        known = self._topics.setdefault(topic, _Topic(partitions, max_message_bytes))
        known.max_message_bytes = max_message_bytes
        if with_dead_letters:
            self.create_topic(
                dead_letter_topic(topic),
                partitions=partitions,
                max_message_bytes=max_message_bytes + HEADROOM_BYTES,
                with_dead_letters=False,
            )

    def records(self, topic: str) -> list[MemoryRecord]:
        """Give what was sent to a topic, in the order of sending; nothing if there is none."""
        known = self._topics.get(topic)
        return list(known.records) if known is not None else []

    def dead_letters(self, topic: str) -> list[MemoryRecord]:
        """Give the dead letters of a topic."""
        return self.records(dead_letter_topic(topic))

    def partitions(self, topic: str) -> int:
        """Give how many partitions a topic has.

        Raises:
            aiokafka.errors.UnknownTopicOrPartitionError: there is no such topic.
        """
        return self._known(topic).partitions

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> MemoryRecord:
        """Append a record to the partition that Kafka's default partitioner names.

        Raises:
            aiokafka.errors.UnknownTopicOrPartitionError: there is no such topic.
            aiokafka.errors.MessageSizeTooLargeError: it is over the topic's limit.
        """
        known = self._known(topic)
        parts = [key or b"", value or b"", *(name.encode() + (of or b"") for name, of in headers)]
        if sum(map(len, parts)) + _BATCH_OVERHEAD_BYTES > known.max_message_bytes:
            raise MessageSizeTooLargeError
        # Of the bytes, as Kafka's partitioner: a consumer meets keys that are no text, too.
        partition = 0 if key is None else (int(murmur2(key)) & 0x7FFFFFFF) % known.partitions
        offset = sum(1 for one in known.records if one.partition == partition)
        record = MemoryRecord(topic, partition, offset, key, value, tuple(headers))
        known.records.append(record)
        return record

    def _known(self, topic: str) -> _Topic:
        if topic not in self._topics:
            raise UnknownTopicOrPartitionError
        return self._topics[topic]
