"""A bare aiokafka `send()` loop, without any database."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks.harness.records import HEADERS, PARTITIONS, key, value
from benchmarks.harness.told import answer


async def main(bootstrap: str, topic: str, rows: int) -> None:
    """Send `rows` records and wait for all of them."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        max_batch_size=262_144,
    )
    await producer.start()
    records = [(key(n).encode(), value(n)) for n in range(rows)]
    for partition in range(PARTITIONS):
        await producer.send_and_wait(topic, b"warm", partition=partition)

    async def send() -> Mapping[str, Any]:
        sent = [await producer.send(topic, v, key=k, headers=HEADERS) for k, v in records]
        await asyncio.gather(*sent)
        return {}

    await answer(send)
    await producer.stop()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
