"""faststream-outbox: `prepare` makes its table, `drain` relays a number of rows to Kafka."""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from faststream.kafka import KafkaBroker, KafkaResponse  # type: ignore[import-not-found] # in the peers' environment only
from faststream_outbox import OutboxBroker, make_outbox_table  # type: ignore[import-not-found] # in the peers' environment only
from faststream_outbox.annotations import OutboxMessage  # type: ignore[import-not-found] # in the peers' environment only
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.harness.told import answer

TABLE = "outbox"
QUEUE = "bench"


async def main(role: str, options: Mapping[str, Any]) -> None:
    """Do one of the two.

    Args:
        role: which.
        options: `url`, `bootstrap`, `topic`, `rows`; `subscriber` settings; `apply_types` of both
            brokers.
    """
    workers = options.get("subscriber", {}).get("max_workers", 1)
    engine = create_async_engine(options["url"], pool_size=workers + 3, max_overflow=5)
    metadata = MetaData()
    table = make_outbox_table(metadata, table_name=TABLE)
    if role == "prepare":
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
    else:
        await _drain(engine, table, options)
    await engine.dispose()


async def _drain(engine: Any, table: Any, options: Mapping[str, Any]) -> None:
    types = options["apply_types"]
    outbox = OutboxBroker(engine, outbox_table=table, logger=None, apply_types=types)
    kafka = KafkaBroker(
        options["bootstrap"],
        apply_types=types,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=262_144,
        logger=None,
    )
    done = 0
    finished = asyncio.Event()

    def response(body: bytes, message: Any) -> KafkaResponse:
        nonlocal done
        done += 1
        if done >= options["rows"]:
            finished.set()
        headers = {"traceparent": message.headers["traceparent"]}
        return KafkaResponse(body, key=message.headers["key"].encode(), headers=headers)

    async def typed(body: bytes, message: OutboxMessage) -> KafkaResponse:
        return response(body, message)

    async def untyped(body):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - an annotation would be resolved
        return response(body, outbox.context.get_local("message"))

    handler = typed if types else untyped
    subscriber = outbox.subscriber(QUEUE, **options["subscriber"])
    kafka.publisher(options["topic"])(subscriber(handler))
    await kafka.start()
    await kafka.publish(b"warm", options["topic"])

    async def work() -> Mapping[str, Any]:
        await outbox.start()
        await finished.wait()
        # The last rows are handled; stopping waits until they are published and removed.
        await outbox.stop()
        return {"done": done}

    await answer(work)
    await kafka.stop()


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
