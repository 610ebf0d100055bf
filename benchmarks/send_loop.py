"""The relay's floor: a bare aiokafka `send()` loop of the same records, without any database."""

import asyncio
import sys
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks.backlog import KEYS, TRACEPARENT, value
from benchmarks.process import answer


async def main(bootstrap: str, topic: str, rows: int) -> None:
    """Send `rows` records, keyed and headed as the relay's, and wait for all of them."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        max_batch_size=262_144,
    )
    await producer.start()
    records = [(f"k{n % KEYS}".encode(), value(n)) for n in range(rows)]
    headers = [("traceparent", TRACEPARENT)]
    await producer.send_and_wait(topic, b"warm", key=b"warm")

    async def send() -> dict[str, Any]:
        sent = [await producer.send(topic, v, key=k, headers=headers) for k, v in records]
        await asyncio.gather(*sent)
        return {}

    await answer(send)
    await producer.stop()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
