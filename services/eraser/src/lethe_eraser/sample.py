"""The loop that counts jobs for the metrics and shows whether the window is open."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.storage.control import count_stale, quarantined
from lethe_eraser.storage.invalidations import unfinished as unfinished_invalidations
from lethe_eraser.storage.jobs import count_by_state
from lethe_eraser.window import Window
from lethe_runtime.database import TRANSIENT, DatabaseProbe
from lethe_runtime.logging import error_class
from lethe_runtime.waiting import pause

INTERVAL_SECONDS: Final = 15.0

_log = structlog.get_logger(__name__)


class Sampler:
    """Keeps what the eraser shows of jobs, control and window fresh.

    Args:
        engine: where jobs are counted.
        metrics: where the counts are shown.
        window: when erasing is allowed.
        control_fresh: how old a control watermark may be.
        clock: the time.
        probe: knows whether the tables are there yet.
        forecast: keeps the forecast fresh.
        interval: seconds between counts.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        metrics: EraserMetrics,
        window: Window,
        control_fresh: timedelta,
        clock: Callable[[], datetime],
        probe: DatabaseProbe,
        forecast: Callable[[], Awaitable[None]],
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._window = window
        self._control_fresh = control_fresh
        self._clock = clock
        self._probe = probe
        self._forecast = forecast
        self._interval = interval

    async def run(self, stop: asyncio.Event) -> None:
        """Count until `stop`; while the database is away the last counts stay."""
        while not stop.is_set():
            self._metrics.window(is_open=self._window.is_open(self._clock()))
            if self._probe.migrated:
                try:
                    await self._count()
                    await self._forecast()
                except TRANSIENT as error:
                    _log.debug("jobs not counted", error_class=error_class(error))
            await pause(self._interval if self._probe.migrated else 1.0, stop)

    async def _count(self) -> None:
        async with self._engine.connect() as connection:
            self._metrics.jobs(await count_by_state(connection))
            self._metrics.control(
                stale_jobs=await count_stale(connection, self._control_fresh),
                quarantined=len(await quarantined(connection)),
            )
            self._metrics.invalidations(*await unfinished_invalidations(connection))
