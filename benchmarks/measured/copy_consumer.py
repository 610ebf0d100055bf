"""The same consumer with COPY of (event, consumer) and nothing else, in batches of 500."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import psycopg
from aiokafka import AIOKafkaConsumer
from psycopg import sql

from benchmarks.harness.told import answer
from lethe_outbox import EVENT_ID_HEADER
from lethe_outbox.kafka.clients import stopped

BATCH = 500


async def main(url: str, bootstrap: str, group: str, topic: str, count: int, table: str) -> None:
    """Copy `count` event ids into `table`, a transaction and a commit of offsets per batch."""
    connection = await psycopg.AsyncConnection.connect(url)
    copying = sql.SQL("COPY {} (event_id, consumer) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(*table.split("."))
    )

    async def work() -> Mapping[str, Any]:
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_poll_records=BATCH,
        )
        await consumer.start()
        consumers.append(consumer)
        copied = 0
        while copied < count:
            polled = await consumer.getmany(timeout_ms=500, max_records=BATCH)
            records = [record for found in polled.values() for record in found]
            if not records:
                continue
            async with connection.cursor().copy(copying) as copy:
                copy.set_types(["uuid", "text"])
                for record in records:
                    await copy.write_row(
                        (UUID(dict(record.headers)[EVENT_ID_HEADER].decode()), group)
                    )
            await connection.commit()
            await consumer.commit()
            copied += len(records)
        return {"handled": copied}

    consumers: list[AIOKafkaConsumer] = []
    await answer(work)
    for consumer in consumers:
        await stopped(consumer)
    await connection.close()


_, _url, _bootstrap, _group, _topic, _count, _table = sys.argv
asyncio.run(main(_url, _bootstrap, _group, _topic, int(_count), _table))
