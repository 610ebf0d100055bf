"""The consumer of a soak as a process: `python -m tests.soak.consumer URL BOOTSTRAP`.

Each event's effect is counted by its key, in the transaction of the inbox.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from lethe_outbox import ConsumerMetrics, ConsumerRunner, ConsumerSettings, Inbox, Record
from tests.soak.world import GROUP, TOPIC, number_in

_APPLY: Final = text(
    "INSERT INTO soak_effect AS e (key, last, count, backwards)"
    " SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:lasts AS bigint[]),"
    " CAST(:counts AS bigint[]), CAST(:backwards AS bigint[]))"
    " ON CONFLICT (key) DO UPDATE SET last = greatest(e.last, excluded.last),"
    " count = e.count + excluded.count, backwards = e.backwards + excluded.backwards"
)
_LASTS: Final = text("SELECT key, last FROM soak_effect WHERE key = ANY (CAST(:keys AS text[]))")


async def apply(connection: AsyncConnection, records: Sequence[Record]) -> None:
    """Count events by key, and those that took effect behind a later one."""
    keys = sorted({record.key.decode() for record in records if record.key})
    found = await connection.execute(_LASTS, {"keys": keys})
    lasts: dict[str, int] = {key: last for key, last in found}  # noqa: C416 - rows are no pairs
    counts = dict.fromkeys(keys, 0)
    backwards = dict.fromkeys(keys, 0)
    for record in records:
        key, number = (record.key or b"").decode(), number_in(record.value or b"")
        counts[key] += 1
        backwards[key] += number <= lasts.get(key, 0)
        lasts[key] = max(number, lasts.get(key, 0))
    await connection.execute(
        _APPLY,
        {
            "keys": keys,
            "lasts": [lasts[key] for key in keys],
            "counts": [counts[key] for key in keys],
            "backwards": [backwards[key] for key in keys],
        },
    )


async def main(url: str, bootstrap: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    engine = create_async_engine(url)
    runner = ConsumerRunner(
        engine,
        bootstrap,
        GROUP,
        [TOPIC],
        apply,
        Inbox(),
        ConsumerMetrics(CollectorRegistry()),
        settings=ConsumerSettings(poll_seconds=0.2),
    )
    await runner.run(stop)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
