"""A relay with every guarantee on, which tells at any time what it owns and has acknowledged."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.harness.told import Progress, hear, say
from lethe_outbox import RelayMetrics
from lethe_outbox.relay import Relay

_LOOK_SECONDS = 0.004


async def main(database_url: str, bootstrap: str, progress_path: Path) -> None:
    """Run until the word `end`; the word `go` wakes it, as a hint would."""
    logging.basicConfig(level=logging.WARNING)
    registry = CollectorRegistry()
    metrics = RelayMetrics(registry)
    relay = Relay("bench", database_url, bootstrap, metrics=metrics)
    stop = asyncio.Event()
    with Progress(progress_path) as progress:
        running = asyncio.create_task(relay.run(stop))
        telling = asyncio.create_task(_tell(metrics, progress))
        obeying = asyncio.create_task(_obey(relay))
        say(ready=True)
        await asyncio.wait({running, telling, obeying}, return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        stop.set()
        await running
    say(**_told(registry))


async def _obey(relay: Relay) -> None:
    while await hear() == "go":
        relay.wake()


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


def _told(registry: CollectorRegistry) -> dict[str, Any]:
    """Give every counter of the relay, labels in the name."""
    return {
        f"{sample.name}{dict(sample.labels)}": sample.value
        for family in registry.collect()
        if family.type == "counter"
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
