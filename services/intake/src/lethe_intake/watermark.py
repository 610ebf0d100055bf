"""The loop that tells the eraser, through the outbox, how fresh what it knows of holds is."""

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from lethe_intake.metrics import IntakeMetrics
from lethe_intake.storage import IntakeStorage
from lethe_runtime.database import TRANSIENT, DatabaseProbe
from lethe_runtime.logging import error_class
from lethe_runtime.waiting import pause

_RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Watermarks:
    """Writes a round of watermarks at regular intervals, one instance at a time.

    Args:
        storage: where they are written.
        metrics: where the newest round is shown.
        probe: knows whether the tables are there yet.
        seconds: between two rounds.
    """

    def __init__(
        self,
        storage: IntakeStorage,
        metrics: IntakeMetrics,
        probe: DatabaseProbe,
        seconds: float,
    ) -> None:
        self._storage = storage
        self._metrics = metrics
        self._probe = probe
        self._every = timedelta(seconds=seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop`; while the database is away there is none, and nobody is erased."""
        while not stop.is_set():
            await pause(await self._turn(), stop)

    async def _turn(self) -> float:
        """Write a round if it is time; gives the seconds to wait."""
        if not self._probe.migrated:
            return _RETRY_SECONDS
        try:
            ticked = await self._storage.watermark(self._every)
        except TRANSIENT as error:
            _log.warning("no watermark written", error_class=error_class(error))
            return _RETRY_SECONDS
        if ticked is not None:
            self._metrics.ticked(ticked.at, ticked.unsettled_buckets)
        # Whoever comes first writes; asking often keeps the rhythm when that instance goes away.
        return self._every.total_seconds() / 5
