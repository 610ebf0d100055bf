"""A consumer runner with its inbox and a handler that does nothing, in batches of 500."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from benchmarks.harness.told import answer
from lethe_outbox import ConsumerMetrics, ConsumerRunner, ConsumerSettings, Inbox, Record

BATCH = 500


async def main(url: str, bootstrap: str, group: str, topic: str, count: int) -> None:
    """Handle `count` records."""
    engine = create_async_engine(url)
    stop = asyncio.Event()
    registry = CollectorRegistry()
    handled = 0

    async def handler(connection: AsyncConnection, records: Sequence[Record]) -> None:
        del connection, records

    async def after_commit(records: Sequence[Record]) -> None:
        nonlocal handled
        handled += len(records)
        if handled >= count:
            stop.set()

    runner = ConsumerRunner(
        engine,
        bootstrap,
        group,
        [topic],
        handler,
        Inbox(),
        ConsumerMetrics(registry),
        settings=ConsumerSettings(batch_records=BATCH),
        after_commit=after_commit,
    )

    async def work() -> Mapping[str, Any]:
        running = asyncio.create_task(runner.run(stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await running
        ending.append(running)
        return {"handled": handled}

    ending: list[asyncio.Task[None]] = []
    await answer(work)
    await asyncio.gather(*ending)
    await engine.dispose()


_, _url, _bootstrap, _group, _topic, _count = sys.argv
asyncio.run(main(_url, _bootstrap, _group, _topic, int(_count)))
