"""A consumer that notes when it has each record."""

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.harness.records import PARTITIONS, number_of
from benchmarks.harness.told import answer
from lethe_outbox.kafka.clients import stopped


async def main(bootstrap: str, topic: str, first: int, count: int, silence: float) -> None:
    """Read until `count` records from `first` on are there, or none came for `silence` seconds."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none")
    await consumer.start()
    partitions = [TopicPartition(topic, n) for n in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning()
    await consumer.getmany(timeout_ms=0)

    async def work() -> Mapping[str, Any]:
        seen: dict[int, float] = {}
        missing = count
        while missing:
            polled = await consumer.getmany(timeout_ms=int(silence * 1000))
            now = time.monotonic()
            if not polled:
                break
            for records in polled.values():
                for record in records:
                    if record.key is None:  # sent to warm up
                        continue
                    number = number_of(record.value)
                    missing -= number >= first and number not in seen
                    seen.setdefault(number, now)
        return {"at": [seen.get(number) for number in range(first, first + count)]}

    await answer(work)
    await stopped(consumer)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
