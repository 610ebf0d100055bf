"""A relay with every guarantee on, which tells at any time what it owns and has acknowledged."""

import asyncio
import logging
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.harness.told import Progress, hear, say
from lethe_outbox import RelayMetrics
from lethe_outbox.relay import Relay

_LOOK_SECONDS = 0.004


async def main(database_url: str, bootstrap: str, progress_path: Path) -> None:
    """Run until the word `end`; the word `go` wakes it, as a hint would.

    At the end it tells by how much every total has grown since the last `go`.
    """
    logging.basicConfig(level=logging.WARNING)
    registry = CollectorRegistry()
    metrics = RelayMetrics(registry)
    relay = Relay("bench", database_url, bootstrap, metrics=metrics)
    stop = asyncio.Event()
    since: dict[str, float] = {}

    async def obey() -> None:
        while await hear() == "go":
            since.update(_totals(registry))
            relay.wake()

    with Progress(progress_path) as progress:
        running = asyncio.create_task(relay.run(stop))
        telling = asyncio.create_task(_tell(metrics, progress))
        obeying = asyncio.create_task(obey())
        say(ready=True)
        await asyncio.wait({running, telling, obeying}, return_when=asyncio.FIRST_COMPLETED)
        totals = {name: one - since.get(name, 0) for name, one in _totals(registry).items()}
        telling.cancel()
        stop.set()
        await running
    say(**totals)


async def _tell(metrics: RelayMetrics, progress: Progress) -> None:
    while True:
        progress.set(_value(metrics.buckets_owned), _value(metrics.acknowledged))
        await asyncio.sleep(_LOOK_SECONDS)


def _value(metric: MetricWrapperBase) -> int:
    """Read a metric of one series without collecting the whole registry."""
    for family in metric.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                return int(sample.value)
    return 0


def _totals(registry: CollectorRegistry) -> dict[str, float]:
    """Give everything that only grows, by name and step."""
    return {
        f"{sample.name}{sample.labels.get('step', '')}": sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_sum", "_count"))
    }


asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
