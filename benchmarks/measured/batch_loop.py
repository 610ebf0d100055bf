"""A bare `create_batch`/`send_batch` loop, without any database: as fast as aiokafka can be."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks.harness.records import HEADERS, PARTITIONS, key, value
from benchmarks.harness.told import answer
from lethe_outbox import bucket_of

Records = Sequence[tuple[bytes, bytes]]


async def main(bootstrap: str, topic: str, rows: int) -> None:
    """Send `rows` records, already sorted by partition, and wait for all of them."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=262_144,
    )
    await producer.start()
    lanes: list[list[tuple[bytes, bytes]]] = [[] for _ in range(PARTITIONS)]
    for n in range(rows):
        lanes[bucket_of(key(n)) % PARTITIONS].append((key(n).encode(), value(n)))
    for partition in range(PARTITIONS):
        await producer.send_and_wait(topic, b"warm", partition=partition)

    async def send() -> Mapping[str, Any]:
        sent = await asyncio.gather(*(_lane(producer, topic, n, r) for n, r in enumerate(lanes)))
        await asyncio.gather(*(one for lane in sent for one in lane))
        return {}

    await answer(send)
    await producer.stop()


async def _lane(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Records
) -> list["asyncio.Future[Any]"]:
    """Hand over one partition's records, the next batch built while the last flies."""
    flying = []
    batch = producer.create_batch()
    for k, v in records:
        if batch.append(key=k, value=v, timestamp=None, headers=HEADERS) is None:
            flying.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(key=k, value=v, timestamp=None, headers=HEADERS)
    if batch.record_count():
        flying.append(await producer.send_batch(batch, topic, partition=partition))
    return flying


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
