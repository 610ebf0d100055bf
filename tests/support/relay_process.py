"""A relay as a process: `python -m tests.support.relay_process URL BOOTSTRAP SETTINGS`."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay import Relay, RelaySettings

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
    url: str, bootstrap: str, log: Path, settings: dict[str, Any] | None = None
) -> subprocess.Popen[bytes]:
    """Start one; what it logs goes to `log`."""
    command = [sys.executable, "-m", "tests.support.relay_process", url, bootstrap]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, json.dumps(settings or {})], cwd=ROOT, stdout=output, stderr=output
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
