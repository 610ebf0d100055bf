"""Keeps the forecast fresh: notes what was measured, counts who came anew, and shows the rest."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.cipher import Cipher
from lethe_contracts.errors import UndecryptableError
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import TURN_BATCHES, Forecast, Work, forecast
from lethe_eraser.execute.stopwatch import Stopwatch
from lethe_eraser.execute.worker import Assignment
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.storage import forecast as stored
from lethe_eraser.window import Window

MOST_COUNTED: Final = 200
"""People counted per sample, so that a thousand new ones do not weigh on the product at once."""

_log = structlog.get_logger(__name__)


class Forecaster:
    """Forecasts this instance's part of the work, by its own workers.

    Args:
        engine: the product's database.
        sources: the client tables.
        cipher: opens the subjects of jobs.
        stopwatch: what this instance's workers do.
        assignment: whose jobs are ours.
        metrics: where the forecast is shown.
        window: when erasing is allowed.
        workers: jobs at once.
        batch_rows: client rows per batch.
        clock: the time.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        sources: Iterable[ClientTable],
        cipher: Cipher,
        stopwatch: Stopwatch,
        assignment: Assignment,
        metrics: EraserMetrics,
        window: Window,
        workers: int,
        batch_rows: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._sources = tuple(sources)
        self._cipher = cipher
        self._stopwatch = stopwatch
        self._assignment = assignment
        self._metrics = metrics
        self._window = window
        self._workers = workers
        self._batch_rows = batch_rows
        self._clock = clock

    async def sample(self) -> None:
        """Note, count, and show the forecast of now."""
        await self._note()
        await self._count()
        self._metrics.forecast(await self.forecast())

    async def forecast(self) -> Forecast | None:
        """Say when the open work is done; None if its size or the rate is unknown."""
        async with self._engine.connect() as connection:
            open_jobs = await stored.open_jobs(connection, self._assignment.buckets)
            rate = await stored.rate(connection)
        work: list[Work] = []
        for one in open_jobs:
            if one.rows is None:
                return None
            turn = max(TURN_BATCHES - one.batches, 0) * self._batch_rows
            work.append(Work(deadline=one.deadline, rows=one.rows, first_turn=turn))
        return forecast(work, rate, workers=self._workers, hours=self._window, now=self._clock())

    async def _note(self) -> None:
        measured = self._stopwatch.take()
        if not measured.seconds:
            return
        try:
            async with self._engine.begin() as connection:
                await stored.add_measured(connection, measured.rows, measured.seconds)
        except BaseException:
            self._stopwatch.add(measured.rows, measured.seconds)
            raise

    async def _count(self) -> None:
        async with self._engine.connect() as connection:
            new = await stored.uncounted(connection, self._assignment.buckets, most=MOST_COUNTED)
        for one in new:
            try:
                subject = self._cipher.decrypt(one.subject, context=one.subject_ref).decode()
            except UndecryptableError:
                # It will fail when its turn comes, and until then be no reason to know nothing.
                _log.warning(
                    "job not counted, its subject cannot be opened", job_id=str(one.job_id)
                )
                rows = 0
            else:
                async with self._engine.connect() as connection:
                    rows = await stored.count_rows(connection, self._sources, subject)
            async with self._engine.begin() as connection:
                await stored.write_expected(connection, one.job_id, rows)
