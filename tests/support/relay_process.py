"""A relay as a process, to be killed and frozen."""

import asyncio
import logging
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay import Relay, RelaySettings
from tests.support.fail_points import FailPoint, arm
from tests.support.forked import Forked


def start(
    url: str,
    bootstrap: str,
    log: Path,
    settings: dict[str, Any] | None = None,
    points: Iterable[FailPoint] = (),
) -> Forked:
    """Start one; what it logs goes to `log`. At `points` it kills or freezes itself."""
    return Forked(_run, url, bootstrap, settings or {}, tuple(points), out=log)


def _run(url: str, bootstrap: str, settings: dict[str, Any], points: Iterable[FailPoint]) -> None:
    for point in points:
        arm(point)
    asyncio.run(_relay(url, bootstrap, settings))


async def _relay(url: str, bootstrap: str, settings: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    relay = Relay(
        "tested",
        url,
        bootstrap,
        settings=RelaySettings(**settings),
        metrics=RelayMetrics(CollectorRegistry()),
    )
    await relay.run(stop)
