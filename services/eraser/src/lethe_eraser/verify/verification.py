"""The second scan: nothing of the person is left, or it is known what and why.

It shares no statement with the code that erased: it asks the client tables which requests are the
person's, the product's tables which values are still there, and S3 which objects of the journal
remain. Then one transaction counts the rows again, masks the client rows that the scan covered,
forgets the person and says so. A heavy person's client rows are masked in chunks before that.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_contracts.events import TypeTotals
from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog
from lethe_eraser.check import unclaimed_tables_of
from lethe_eraser.domain import (
    MAX_ROUNDS,
    Job,
    JobState,
    ObjectRef,
    Source,
    add,
    say,
    with_blocked,
)
from lethe_eraser.fence import Fence
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.pace import RowBudget
from lethe_eraser.storage import invalidations, jobs, progress
from lethe_eraser.storage.client_rows import mask_client_rows
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.storage.progress import Blocked
from lethe_eraser.verify.client_rows import ClientRows
from lethe_eraser.verify.invalidate import UNKNOWN, Invalidator
from lethe_eraser.verify.objects import Handlers, Store, given_again, objects_left, read_anew
from lethe_eraser.verify.rows import AT_ONCE, Rows, read_rows

AGAIN_AFTER: Final = timedelta(seconds=5)
"""Pause before the round that follows a scan which found something."""

EDGES_AGAIN: Final = timedelta(minutes=1)
"""Pause before the CDN is asked again; an invalidation takes some minutes."""

SCHEDULED_AGAIN: Final = timedelta(hours=1)
"""Pause before scheduled objects are looked for again; lifecycle rules run once a day."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Scan:
    """All that the scan found."""

    rows: Rows
    objects: tuple[Intent, ...]
    """Objects that were deleted and are there, each under the batch that deleted it."""
    scheduled: int = 0
    """Objects that wait for their lifecycle rule."""
    at_edges: int = 0
    """Invalidations that the CDN has not finished."""
    read_anew: Mapping[ObjectRef, Source | BlockReason] = field(default_factory=dict)
    """Of `objects`, those that others are found through, or why nobody can tell which."""

    def why_left(self, ref: ObjectRef) -> BlockReason:
        """Say why one of `objects` is left after the last round."""
        read = self.read_anew.get(ref, BlockReason.OBJECT_NOT_DELETED)
        return BlockReason.STILL_WRITING if isinstance(read, Source) else read


@dataclass(frozen=True, slots=True)
class TooMany:
    """Nothing is left, and there are more client rows than are masked in one transaction."""

    job: Job


class Verification:
    """Verifies a job that is erased.

    Args:
        engine: the product's database.
        catalog: which tables and columns there are, and what masked values look like.
        objects: lists objects.
        handlers: finds the handler of a request type.
        journal: the intents of the job's batches.
        announcer: appends events.
        fence: lets something begin with a job.
        metrics: counts what was committed.
        budget: how many rows of all persons are masked per second, with `execute/batch.py`.
        invalidator: tells the CDN; None if there is none.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        catalog: Catalog,
        objects: Store,
        handlers: Handlers,
        journal: Journal,
        announcer: Announcer,
        fence: Fence,
        metrics: EraserMetrics,
        budget: RowBudget,
        invalidator: Invalidator | None = None,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._objects = objects
        self._handlers = handlers
        self._journal = journal
        self._announcer = announcer
        self._fence = fence
        self._metrics = metrics
        self._invalidator = invalidator
        self._budget = budget
        self.client_rows = ClientRows(
            engine=engine,
            catalog=catalog,
            journal=journal,
            fence=fence,
            metrics=metrics,
            budget=self._budget,
        )

    async def run(self, job: Job, subject: str, may_go_on: Callable[[], bool]) -> Job | None:
        """Scan, and conclude: verified, blocked, or back to another round.

        Returns:
            The job; unchanged if `may_go_on` said no; None if a hold stopped it.
        """
        scan = await self.scan(job, subject, may_go_on)
        if scan is None:
            return job
        return await self.conclude(job, subject, scan, may_go_on)

    async def scan(self, job: Job, subject: str, may_go_on: Callable[[], bool]) -> Scan | None:
        """Read what is left, in no transaction; None if `may_go_on` said no."""
        at_edges = 0
        if self._invalidator is not None:
            at_edges = await self._invalidator.advance(job, subject, may_go_on)
        if at_edges == UNKNOWN:
            return None
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            left = await objects_left(
                connection, self._journal, self._objects, job.job_id, may_go_on
            )
        if left is None:
            return None
        async with self._engine.connect() as connection:
            rows = await read_rows(connection, self._catalog, job.job_id, subject)
        anew = await read_anew(self._handlers, subject, left.found)
        return Scan(rows, left.found, left.scheduled, at_edges, anew)

    async def conclude(
        self, job: Job, subject: str, scan: Scan, may_go_on: Callable[[], bool]
    ) -> Job | None:
        """Count again and end the job in one transaction, or send it round again.

        Client rows that are too many for one transaction are masked before it.
        """
        going: Job | None = job
        covered = len(scan.rows.covered)
        # More are masked in chunks, each of which asks for itself.
        if covered <= AT_ONCE and not await self._budget.take(covered, may_go_on):
            return going
        while going is not None:
            judged = await self._judge(going, subject, scan)
            if not isinstance(judged, TooMany):
                return judged
            going = await self.client_rows.mask(judged.job, subject, scan.rows.covered, may_go_on)
            if not may_go_on():
                break
        return going

    async def _judge(self, job: Job, subject: str, scan: Scan) -> Job | TooMany | None:
        async with self._engine.begin() as connection:
            await jobs.limit_lock_waits(connection)
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.ERASED:
                return None
            rows = await self._nothing_left(connection, locked, subject, scan)
            if isinstance(rows, Job):
                return rows
            if rows.to_mask > AT_ONCE:
                return TooMany(locked)
            ended, masked = await self._end(connection, locked, subject, rows)
        for request_type, count in masked.items():
            self._metrics.rows("client", request_type, count)
        _log.info(
            "job ended",
            job_id=str(job.job_id),
            subject_ref=job.subject_ref,
            state=ended.state,
            rounds=ended.round,
        )
        return ended

    async def _nothing_left(
        self, connection: AsyncConnection, job: Job, subject: str, scan: Scan
    ) -> Rows | Job:
        """Count again; gives the job instead if it must wait or go round again."""
        if await self._journal.has_pending(connection, job.job_id):
            return await self._again(connection, job, scan)
        rows = await self._recount(connection, job, subject, scan)
        if rows.again_in is not None:
            # Neither a round is spent nor anybody blocked for what is still being written.
            await jobs.write(connection, job, retry_in=rows.again_in)
            return job
        if rows.overdue:
            await progress.record_blocked(connection, job.job_id, job.round, None, rows.overdue)
            rows = await self._recount(connection, job, subject, scan)
        if rows.survivors or rows.unclaimed or rows.late or scan.objects:
            if job.round < MAX_ROUNDS:
                return await self._again(connection, job, scan)
            await self._give_up(connection, job, scan, rows)
            rows = await self._recount(connection, job, subject, scan)
        if scan.scheduled or scan.at_edges:
            return await self._wait(connection, job, scan)
        return rows

    async def _recount(
        self, connection: AsyncConnection, job: Job, subject: str, scan: Scan
    ) -> Rows:
        return await read_rows(
            connection, self._catalog, job.job_id, subject, seen=scan.rows.covered, settle=True
        )

    async def _again(self, connection: AsyncConnection, job: Job, scan: Scan) -> Job:
        """Another round finds late rows by itself; objects that came back are given to it."""
        again = job.to(JobState.RUNNING)
        again = replace(again, round=again.round + 1)
        await progress.try_refused_again(connection, job.job_id)
        for intent in given_again(scan.objects, scan.read_anew):
            again = replace(again, batches=again.batches + 1)
            numbered = replace(intent, batch=again.batches)
            await self._journal.write(connection, job.job_id, again.round, numbered)
        again, said = say(again, again.snapshot())
        await jobs.write(connection, again, retry_in=AGAIN_AFTER)
        await self._announcer.announce(connection, [said])
        _log.warning(
            "verification found something left",
            job_id=str(job.job_id),
            subject_ref=job.subject_ref,
            rows=len(scan.rows.survivors),
            objects=sum(len(found.objects) for found in scan.objects),
        )
        return again

    async def _wait(self, connection: AsyncConnection, job: Job, scan: Scan) -> Job:
        """Look again later: what is left goes by itself."""
        pause = SCHEDULED_AGAIN if scan.scheduled else EDGES_AGAIN
        await jobs.write(connection, job, retry_in=pause)
        _log.info(
            "job waits",
            job_id=str(job.job_id),
            subject_ref=job.subject_ref,
            scheduled=scan.scheduled,
            invalidations=scan.at_edges,
        )
        return job

    async def _give_up(self, connection: AsyncConnection, job: Job, scan: Scan, rows: Rows) -> None:
        """After the last round, what is still left is blocked by name."""
        left = [*rows.unclaimed, *rows.late]
        left += [row.blocked(BlockReason.STILL_WRITING) for row in rows.survivors]
        await progress.record_blocked(connection, job.job_id, job.round, None, left)
        for found in scan.objects:
            objects = [
                progress.blocked_object(job.job_id, part.request_type, ref, scan.why_left(ref))
                for part in found.found
                for ref in part.objects
            ]
            await progress.record_blocked(connection, job.job_id, job.round, found.batch, objects)

    async def _end(
        self, connection: AsyncConnection, job: Job, subject: str, rows: Rows
    ) -> tuple[Job, Mapping[str, int]]:
        await self._record_uncovered(connection, job, subject)
        await progress.record_left_by_others(connection, job)
        masked = await self._mask_client_rows(connection, subject, rows)
        totals = dict(job.totals)
        for request_type, count in masked.items():
            totals = add(totals, request_type, TypeTotals(client_rows=count))
        by_type = await progress.blocked_by_type(connection, job.job_id)
        totals = with_blocked(totals, by_type, final=True)
        reasons = await progress.blocked_by_reason(connection, job.job_id)
        until = await progress.locked_until(connection, job.job_id)
        ended = replace(job, totals=totals, reasons=reasons, locked_until=until)
        ended = ended.to(JobState.BLOCKED if reasons else JobState.VERIFIED)
        ended, said = say(ended, ended.snapshot())
        await self._journal.purge(connection, job.job_id)
        await invalidations.purge(connection, job.job_id)
        if ended.state is JobState.VERIFIED:
            await progress.purge(connection, job.job_id)
        await jobs.write(connection, ended)
        await self._announcer.announce(connection, [said])
        return ended, masked

    async def _record_uncovered(self, connection: AsyncConnection, job: Job, subject: str) -> None:
        """Block the job for every table that nobody claims and that has a client key of theirs."""
        met = [
            Blocked(
                kind="client",
                table=f"{one.schema}.{one.table}",
                row_key=one.column,
                request_type=one.table,
                request_id=None,
                reason=BlockReason.UNCOVERED,
            )
            for one in await unclaimed_tables_of(connection, self._catalog, subject)
        ]
        await progress.record_blocked(connection, job.job_id, job.round, None, met)

    async def _mask_client_rows(
        self, connection: AsyncConnection, subject: str, rows: Rows
    ) -> Mapping[str, int]:
        """Mask the client rows that both looks saw, by primary key."""
        masked: Counter[str] = Counter()
        for source in self._catalog.client_tables:
            for request_type, keys in rows.few[source.name].items():
                masked[request_type] += await mask_client_rows(connection, source, subject, keys)
        return masked
