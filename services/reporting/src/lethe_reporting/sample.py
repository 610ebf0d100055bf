"""The loop that looks at the read model for the metrics."""

import asyncio
import time
from typing import Final

import structlog

from lethe_reporting.consumer import GROUP
from lethe_reporting.metrics import ReportingMetrics
from lethe_reporting.storage.dead_letters import DeadLetters
from lethe_reporting.storage.requests import Requests
from lethe_runtime.database import TRANSIENT, DatabaseProbe
from lethe_runtime.logging import error_class
from lethe_runtime.waiting import pause

INTERVAL_SECONDS: Final = 10.0
_UNTIL_MIGRATED_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Sampler:
    """Keeps the sampled `reporting_*` gauges fresh.

    Args:
        requests: where requests are counted.
        letters: where dead letters are counted.
        metrics: where the figures are shown.
        probe: knows whether the tables are there yet.
        interval: seconds between samples.
    """

    def __init__(
        self,
        requests: Requests,
        letters: DeadLetters,
        metrics: ReportingMetrics,
        probe: DatabaseProbe,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._requests = requests
        self._letters = letters
        self._metrics = metrics
        self._probe = probe
        self._interval = interval

    async def run(self, stop: asyncio.Event) -> None:
        """Sample until `stop`; while the database is away the last figures stay, and grow old."""
        while not stop.is_set():
            if self._probe.migrated:
                await self._sample()
            await pause(self._interval if self._probe.migrated else _UNTIL_MIGRATED_SECONDS, stop)

    async def _sample(self) -> None:
        try:
            figures = await self._requests.figures()
            # What the relay was refused and published after all waits for nobody.
            closed = await self._letters.close_published(GROUP)
            letters = await self._letters.open()
        except TRANSIENT as error:
            _log.warning("read model not sampled", error_class=error_class(error))
            return
        if closed:
            _log.info("dead letters closed, their outbox published them", count=closed)
        self._metrics.sampled(figures, letters, time.time())
