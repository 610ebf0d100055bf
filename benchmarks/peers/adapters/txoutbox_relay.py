"""txoutbox: `prepare` makes its table, `drain` relays a number of rows, `serve` relays for ever."""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it carries no types
from aiokafka import AIOKafkaProducer
from txoutbox import Relay, RelayConfig  # type: ignore[import-not-found] # in the peers' environment only
from txoutbox.adapters.postgres import PostgresStorage  # type: ignore[import-not-found] # in the peers' environment only

from benchmarks.harness.told import answer, hear, say

TABLE = "outbox"
_LEASE = timedelta(seconds=300)


async def main(role: str, options: Mapping[str, Any]) -> None:
    """Do one of the three.

    Args:
        role: which.
        options: `url`, `bootstrap`, `topic`, `rows`; `config` of the relay; of the storage
            `strict` order per key, `delete` sent rows, `notify` by trigger.
    """
    logging.disable(logging.INFO)
    async with asyncpg.create_pool(options["url"], min_size=3, max_size=6) as pool:
        storage = PostgresStorage(
            pool,
            table=TABLE,
            strict_ordering=options.get("strict", True),
            delete_on_ack=options.get("delete", False),
            notify_channel=TABLE if options.get("notify") else None,
        )
        if role == "prepare":
            await pool.execute(storage.schema_sql())
            return
        async with AIOKafkaProducer(
            bootstrap_servers=options["bootstrap"],
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=262_144,
        ) as producer:

            async def publish(message: Any) -> None:
                await producer.send_and_wait(
                    message.topic,
                    message.payload,
                    key=message.key.encode(),
                    headers=[(name, text.encode()) for name, text in message.headers.items()],
                )

            await producer.send_and_wait(options["topic"], b"warm")
            relay = Relay(storage, publish, config=_config(options["config"]))
            if role == "drain":
                await answer(lambda: _drain(relay, options["rows"]))
            else:
                await _serve(relay, storage, notified=bool(options.get("notify")))


def _config(config: Mapping[str, Any]) -> RelayConfig:
    return RelayConfig(lease=_LEASE, **config)


async def _drain(relay: Relay, rows: int) -> Mapping[str, Any]:
    done = 0
    while done < rows:
        done += (await relay.run_once()).claimed
    return {"done": done}


async def _serve(relay: Relay, storage: PostgresStorage, *, notified: bool) -> None:
    if notified:
        await storage.listen(relay.wake)
    running = asyncio.create_task(relay.run())
    say(ready=True)
    await hear()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
