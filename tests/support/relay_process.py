"""A relay as a process: `python -m tests.support.relay_process URL BOOTSTRAP SETTINGS POINTS`."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay import Relay, RelaySettings
from tests.support.fail_points import FailPoint, arm

ROOT = Path(__file__).parents[2]


async def main(url: str, bootstrap: str, settings: dict[str, Any]) -> None:
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


def start(
    url: str,
    bootstrap: str,
    log: Path,
    settings: dict[str, Any] | None = None,
    points: Iterable[FailPoint] = (),
) -> subprocess.Popen[bytes]:
    """Start one; what it logs goes to `log`. At `points` it kills or freezes itself."""
    command = [sys.executable, "-m", "tests.support.relay_process", url, bootstrap]
    told = [json.dumps(settings or {}), json.dumps([point.as_json() for point in points])]
    with log.open("ab") as output:
        return subprocess.Popen([*command, *told], cwd=ROOT, stdout=output, stderr=output)


if __name__ == "__main__":
    for point in json.loads(sys.argv[4]):
        arm(FailPoint(**point))
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
