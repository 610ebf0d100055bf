"""Masks the client rows of a heavy person, a chunk at a time, after nothing else was left.

A client row is the only way to its request, so each chunk counts again what is left of its own
requests, in the transaction that masks it. What a chunk masked is never looked for again: whoever
goes on after a crash begins with the rows that are still there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_contracts.events import TypeTotals
from lethe_eraser.catalog import Catalog
from lethe_eraser.domain import Job, JobState, add
from lethe_eraser.fence import Fence
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.pace import RowBudget
from lethe_eraser.storage import jobs
from lethe_eraser.storage.client_rows import (
    ClientRow,
    mask_client_rows,
    page_client_rows,
    types_of,
)
from lethe_eraser.storage.journal import Journal
from lethe_eraser.storage.progress import Page
from lethe_eraser.verify.rows import AT_ONCE, Covered, Known, known, survivors
from lethe_eraser.verify.settling import settling


@dataclass(frozen=True, slots=True)
class Chunk:
    """What came of a chunk."""

    job: Job
    next: Page | None = None
    something_left: bool = False
    """Something of its requests is there again, or may be: nothing was masked."""


class ClientRows:
    """Masks client rows in transactions of their own.

    Args:
        engine: the product's database.
        catalog: the client tables, and the tables of their requests.
        journal: tells whether a batch is unfinished.
        fence: lets something begin with a job.
        metrics: counts what was committed.
        budget: how many rows of all persons are masked per second.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        catalog: Catalog,
        journal: Journal,
        fence: Fence,
        metrics: EraserMetrics,
        budget: RowBudget,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._sources = {source.name: source for source in catalog.client_tables}
        self._journal = journal
        self._fence = fence
        self._metrics = metrics
        self._budget = budget

    async def mask(
        self, job: Job, subject: str, covered: Covered, may_go_on: Callable[[], bool]
    ) -> Job | None:
        """Mask the client rows that the scan covered, until something is left of a request.

        Returns:
            The job with what was masked, which is not all if `may_go_on` said no; None if a hold
            stopped it.
        """
        async with self._engine.connect() as connection:
            left = await known(connection, job.job_id)
        for source in self._catalog.client_tables:
            async with self._engine.connect() as connection:
                types = await types_of(connection, source, subject)
            for request_type in sorted(types.keys() & self._catalog.features.keys()):
                page: Page | None = Page(request_type, source.name)
                rows = types[request_type]
                while page is not None:
                    if not await self._budget.take(min(rows, AT_ONCE), may_go_on):
                        return job
                    rows = max(rows - AT_ONCE, 0)
                    chunk = await self.chunk(job, subject, page, covered, left)
                    if chunk is None:
                        return None
                    job, page = chunk.job, chunk.next
                    if chunk.something_left:
                        return job
        return job

    async def chunk(
        self, job: Job, subject: str, page: Page, covered: Covered, left: Known
    ) -> Chunk | None:
        """Count again what is left of one chunk's requests, and mask it if there is nothing."""
        source, request_type = self._sources[page.source], page.request_type
        async with self._engine.begin() as connection:
            await jobs.limit_lock_waits(connection)
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.ERASED:
                return None
            if await self._journal.has_pending(connection, job.job_id):
                return Chunk(locked, something_left=True)
            found = await page_client_rows(
                connection, source, subject, request_type, after=page.after, limit=AT_ONCE
            )
            rows = [
                row
                for row in found
                if (request_type, row.request_id) not in left.requests
                and covered.holds(source.name, row.primary_key)
            ]
            if await self._anything_left(connection, request_type, rows, left):
                return Chunk(locked, something_left=True)
            keys = [row.primary_key for row in rows]
            masked = await mask_client_rows(connection, source, subject, keys)
            totals = add(locked.totals, request_type, TypeTotals(client_rows=masked))
            # An error in a chunk to come is not forgotten for one that had nothing to mask.
            after = replace(locked, totals=totals, attempts=0 if masked else locked.attempts)
            await jobs.write(connection, after)
        self._metrics.rows("client", request_type, masked)
        more = replace(page, after=found[-1].cursor) if len(found) == AT_ONCE else None
        return Chunk(after, more)

    async def _anything_left(
        self, connection: AsyncConnection, request_type: str, rows: list[ClientRow], left: Known
    ) -> bool:
        ids = {row.request_id for row in rows if row.request_id is not None}
        if await survivors(connection, self._catalog, request_type, ids, left):
            return True
        unsettled = await settling(connection, self._catalog, {request_type: ids})
        return unsettled.again_in is not None or bool(unsettled.overdue)
