"""The loop that counts open requests for the metrics."""

import asyncio
from typing import Final

import structlog

from lethe_intake.metrics import IntakeMetrics
from lethe_intake.storage import IntakeStorage
from lethe_runtime.database import TRANSIENT, DatabaseProbe
from lethe_runtime.logging import error_class
from lethe_runtime.waiting import pause

INTERVAL_SECONDS: Final = 15.0

_log = structlog.get_logger(__name__)


class Sampler:
    """Keeps `intake_open_requests` fresh.

    Args:
        storage: where requests are counted.
        metrics: where the counts are shown.
        probe: knows whether the tables are there yet.
        interval: seconds between counts.
    """

    def __init__(
        self,
        storage: IntakeStorage,
        metrics: IntakeMetrics,
        probe: DatabaseProbe,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._storage = storage
        self._metrics = metrics
        self._probe = probe
        self._interval = interval

    async def run(self, stop: asyncio.Event) -> None:
        """Count until `stop`; while the database is away the last counts stay."""
        while not stop.is_set():
            if self._probe.migrated:
                try:
                    self._metrics.sampled(await self._storage.count_open())
                except TRANSIENT as error:
                    _log.debug("requests not counted", error_class=error_class(error))
            await pause(self._interval if self._probe.migrated else 1.0, stop)
