"""The measured relay: it drains a backlog, every guarantee on, and ends with the last row."""

import asyncio
import sys
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.process import answer
from lethe_outbox import RelayMetrics
from lethe_outbox.relay import Relay

_LOOK_SECONDS = 0.005


async def main(database_url: str, bootstrap: str, rows: int) -> None:
    """Run one relay until `rows` rows are acknowledged."""
    registry = CollectorRegistry()
    relay = Relay("bench", database_url, bootstrap, metrics=RelayMetrics(registry))

    async def drain() -> dict[str, Any]:
        stop = asyncio.Event()
        running = asyncio.create_task(relay.run(stop))
        while _acknowledged(registry) < rows:
            done, _ = await asyncio.wait({running}, timeout=_LOOK_SECONDS)
            if done:
                await running
                raise RuntimeError("the relay stopped by itself")
        told = {"acknowledged": _acknowledged(registry)}
        stop.set()
        await running
        return told

    await answer(drain)


def _acknowledged(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("relay_acknowledged_total", {"outbox": "bench"}) or 0


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
