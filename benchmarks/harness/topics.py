"""Topics for one case each, and reading them back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.harness.model import Verdict
from benchmarks.harness.records import PARTITIONS, number_of
from lethe_outbox import TopicSpec, dead_letter_topic, ensure_topics
from lethe_outbox.kafka.clients import stopped

_FETCH_BYTES = 4 * 1024 * 1024
_ANSWER_MS = 5_000


@contextlib.contextmanager
def topic(bootstrap: str, *, dead_letters: bool = False) -> Iterator[str]:
    """Give the name of an empty topic, removed at the end (what it filled slows the broker)."""
    name = f"bench.{uuid4().hex}"
    names = [name, *([dead_letter_topic(name)] if dead_letters else [])]
    specs = [TopicSpec(one, PARTITIONS, {"file.delete.delay.ms": "1000"}) for one in names]
    asyncio.run(ensure_topics(bootstrap, specs))
    try:
        yield name
    finally:
        asyncio.run(_delete(bootstrap, names))


def delete_all(bootstrap: str) -> None:
    """Delete every topic but Kafka's own, and with them what consumer groups have read of them."""

    async def delete() -> None:
        async with _admin(bootstrap) as admin:
            names = [name for name in await admin.list_topics() if not name.startswith("__")]
            if names:
                await admin.delete_topics(names)

    asyncio.run(delete())


async def _delete(bootstrap: str, names: list[str]) -> None:
    async with _admin(bootstrap) as admin:
        await admin.delete_topics(names)


@contextlib.asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def read_back(bootstrap: str, name: str, expected: int, *, first: int = 0) -> Verdict:
    """Read a whole topic and say what is missing of `first`, `first + 1`, ... and what is wrong."""
    return asyncio.run(_read_back(bootstrap, name, Tally(expected, first)))


class Tally:
    """Counts what is lost, double or out of order among numbered records.

    Args:
        expected: how many numbers there should be.
        first: the lowest.
    """

    def __init__(self, expected: int, first: int = 0) -> None:
        self._first = first
        self._seen = bytearray(expected)
        self._last: dict[bytes, int] = {}
        self._found = 0
        self._duplicates = 0
        self._inversions = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Take one record, in the order of its partition.

        Raises:
            ValueError: nobody wrote this one.
        """
        number = number_of(value)
        place = number - self._first
        if not 0 <= place < len(self._seen):
            raise ValueError(f"the topic holds number {number}, which nobody wrote")
        self._found += 1
        if self._seen[place]:
            self._duplicates += 1
            return
        self._seen[place] = 1
        if number < self._last.get(key, -1):
            self._inversions += 1
        else:
            self._last[key] = number

    def verdict(self) -> Verdict:
        """Say what was found."""
        return Verdict(
            expected=len(self._seen),
            found=self._found,
            lost=self._seen.count(0),
            duplicates=self._duplicates,
            inversions=self._inversions,
        )


async def _read_back(bootstrap: str, name: str, tally: Tally) -> Verdict:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        max_partition_fetch_bytes=_FETCH_BYTES,
        auto_offset_reset="none",
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(name, n) for n in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends: Mapping[TopicPartition, int] = await consumer.end_offsets(partitions)
        open_ = {one for one, end in ends.items() if end}
        while open_:
            polled = await consumer.getmany(timeout_ms=_ANSWER_MS)
            if not polled:
                raise TimeoutError(f"{name} cannot be read to its end")
            for partition, records in polled.items():
                for record in records:
                    if record.key is not None:  # what was sent to warm up has none
                        tally.add(record.key, record.value)
                if records[-1].offset + 1 >= ends[partition]:
                    open_.discard(partition)
    finally:
        await stopped(consumer)
    return tally.verdict()
