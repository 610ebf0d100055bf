"""A bare `create_batch`/`send_batch` loop, without any database: as fast as aiokafka can be."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from uuid_utils.compat import uuid7

from benchmarks.harness.records import HEADERS, PARTITIONS, key, value
from benchmarks.harness.told import answer
from lethe_outbox import EVENT_ID_HEADER, bucket_of

Headers = list[tuple[str, bytes]]
Records = Sequence[tuple[bytes, bytes, Headers]]


async def main(bootstrap: str, topic: str, rows: int) -> None:
    """Send `rows` records, already sorted by partition, and wait for all of them."""
    producer = _producer(bootstrap)
    await producer.start()
    lanes = _lanes(rows, identified=False)
    for partition in range(PARTITIONS):
        await producer.send_and_wait(topic, b"warm", partition=partition)

    async def work() -> Mapping[str, Any]:
        await _send(producer, topic, lanes)
        return {}

    await answer(work)
    await producer.stop()


async def send(bootstrap: str, topic: str, rows: int) -> None:
    """Fill a topic with `rows` records that carry event ids, for whoever measures consumers."""
    async with _producer(bootstrap) as producer:
        await _send(producer, topic, _lanes(rows, identified=True))


def _producer(bootstrap: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=262_144,
    )


def _lanes(rows: int, *, identified: bool) -> Sequence[Records]:
    """Give the records of each partition."""
    lanes: list[list[tuple[bytes, bytes, Headers]]] = [[] for _ in range(PARTITIONS)]
    for n in range(rows):
        own = [(EVENT_ID_HEADER, str(uuid7()).encode())] if identified else []
        lane = lanes[bucket_of(key(n)) % PARTITIONS]
        lane.append((key(n).encode(), value(n), [*own, *HEADERS] if own else HEADERS))
    return lanes


async def _send(producer: AIOKafkaProducer, topic: str, lanes: Sequence[Records]) -> None:
    sent = await asyncio.gather(*(_lane(producer, topic, n, r) for n, r in enumerate(lanes)))
    await asyncio.gather(*(one for lane in sent for one in lane))


async def _lane(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Records
) -> list["asyncio.Future[Any]"]:
    """Hand over one partition's records, the next batch built while the last flies."""
    flying = []
    batch = producer.create_batch()
    for k, v, headers in records:
        if batch.append(key=k, value=v, timestamp=None, headers=headers) is None:
            flying.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(key=k, value=v, timestamp=None, headers=headers)
    if batch.record_count():
        flying.append(await producer.send_batch(batch, topic, partition=partition))
    return flying


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
