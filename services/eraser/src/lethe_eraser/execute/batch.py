"""One batch in four steps: collect, commit the intent, delete from S3, mask with its event.

No transaction is open while S3 works. A crash after any step is finished from the journal: the plan
that was committed is carried out, never a new one made of what is left.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_contracts.events import BatchErased, TypeTotals
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import (
    MAX_ROUNDS,
    BlockedRow,
    Job,
    JobState,
    Masked,
    ObjectRef,
    RowTarget,
    Said,
    add,
    say,
    with_blocked,
)
from lethe_eraser.execute.left_behind import (
    blocked_row,
    left_behind,
    unknown,
    without_doubted,
)
from lethe_eraser.execute.references import NOBODY_ELSE, References
from lethe_eraser.fence import Fence
from lethe_eraser.handlers import ErasureHandler
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.objects import NOTHING, Deletion
from lethe_eraser.storage import jobs, progress
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.storage.product import page_client_rows
from lethe_eraser.storage.progress import OBJECTS_ONLY, Blocked, Page

UNKNOWN_TYPE_LABEL: Final = "unknown"

Handlers = Callable[[str], ErasureHandler | None]


class Deleter(Protocol):
    """What a batch needs of the object store."""

    async def delete(self, refs: Sequence[ObjectRef]) -> Deletion:
        """Delete every version of `refs`; raises while the store is away."""
        ...

    async def missing(self, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        """Give those that are not there, of buckets where it is asked; raises likewise."""
        ...


class Batches:
    """Erases a person's requests by the batch.

    Args:
        engine: the product's database.
        sources: the client tables.
        handlers: finds the handler of a request type.
        objects: deletes objects.
        journal: keeps intents.
        announcer: appends events.
        fence: lets something begin with a job.
        metrics: counts what was committed.
        batch_rows: client rows per batch.
        references: tells which objects other rows still name.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        sources: Iterable[ClientTable],
        handlers: Handlers,
        objects: Deleter,
        journal: Journal,
        announcer: Announcer,
        fence: Fence,
        metrics: EraserMetrics,
        batch_rows: int,
        references: References = NOBODY_ELSE,
    ) -> None:
        self._engine = engine
        self._sources: Mapping[str, ClientTable] = {source.name: source for source in sources}
        self._handlers = handlers
        self._objects = objects
        self._journal = journal
        self._announcer = announcer
        self._fence = fence
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._references = references

    async def erase(self, job: Job, subject: str, page: Page) -> tuple[Job, Page | None] | None:
        """Erase the batch that begins at `page`.

        Returns:
            The job, and the next page if there is one; or None if no batch may begin.

        Raises:
            TakenOverError: another executor has the job.
            ObjectStoreUnavailableError: S3 is away; the batch is finished by a later `finish`.
        """
        began = time.monotonic()
        intent = await self.collect(job, subject, page)
        if intent.rows:
            begun = await self.intend(job, intent)
            if begun is None:
                return None
            job, intent = begun
        after = await self.finish(job, intent, began=began)
        if after is None:
            return None
        return after, None if intent.done else replace(page, after=intent.end)

    async def finish(self, job: Job, intent: Intent, *, began: float | None = None) -> Job | None:
        """Carry out an intent: delete, then mask. The same intent twice is the intent once.

        Objects whose last reference the mask took are deleted after it, from an intent that was
        committed with the mask.
        """
        if intent.if_unreferenced:
            intent = await self._references.without_referenced(self._engine, intent)
        deletion = await self.delete(intent)
        after = await self.mask(job, intent, deletion)
        if after is not None and (intent.rows or intent.objects):
            label = self._label(intent.page.request_type)
            self._metrics.batch(label, time.monotonic() - (began or time.monotonic()))
        if after is None or not any(row.unless_referenced for row in intent.rows):
            return after
        return await self._finish_pending(after)

    async def _finish_pending(self, job: Job) -> Job | None:
        async with self._engine.connect() as connection:
            pending = await self._journal.pending(connection, job.job_id)
        going: Job | None = job
        for intent in pending:
            if going is None or going.state is not JobState.RUNNING:
                break
            going = await self.finish(going, intent)
        return going

    async def collect(self, job: Job, subject: str, page: Page) -> Intent:
        """Find the batch's rows and objects, in no transaction; its number is not given yet."""
        handler = self._handlers(page.request_type)
        async with self._reading() as connection:
            rows = await page_client_rows(
                connection,
                self._sources[page.source],
                subject,
                page.request_type,
                after=page.after,
                limit=self._batch_rows,
            )
            found: tuple[RowTarget, ...] = ()
            blocked: tuple[Blocked, ...] = ()
            if handler is None:
                blocked = tuple(unknown(self._sources[page.source], page, row) for row in rows)
            elif ids := sorted({row.request_id for row in rows if row.request_id is not None}):
                targets = await handler.find_targets(connection, page.request_type, ids, subject)
                revived, left = await self._revive(connection, job, targets.blocked)
                found = (*targets.rows, *revived)
                blocked = tuple(blocked_row(row, page.request_type, row.reason) for row in left)
        plan = Intent(
            batch=0,
            page=page,
            end=rows[-1].cursor if rows else page.after,
            done=len(rows) < self._batch_rows,
            rows=found,
            blocked=blocked,
        )
        missing = await self._objects.missing(plan.refs)
        return replace(plan, missing=tuple(sorted(missing, key=str)))

    async def intend(self, job: Job, plan: Intent) -> tuple[Job, Intent] | None:
        """Commit the plan to the journal; None if no batch may begin."""
        async with self._engine.begin() as connection:
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.RUNNING:
                return None
            locked = replace(locked, batches=locked.batches + 1)
            intent = replace(plan, batch=locked.batches)
            if plan.missing:
                doubted = await progress.missing_too_often(
                    connection, job.job_id, plan.refs, plan.missing
                )
                intent = without_doubted(intent, doubted)
            await self._journal.write(connection, job.job_id, locked.round, intent)
            await jobs.write(connection, locked)
        return locked, intent

    async def delete(self, intent: Intent) -> Deletion:
        """Delete the batch's objects, and say what became of them."""
        last = {ref for row in intent.rows for ref in row.delete_last}
        first = [ref for ref in intent.refs if ref not in last]
        deletion = await self._objects.delete(first) if first else NOTHING
        # What others are found through goes only when nothing is found through it any more.
        needed = {
            ref
            for row in intent.rows
            if not {*row.delete} <= deletion.done | last
            for ref in row.delete_last
        }
        if ready := [ref for ref in intent.refs if ref in last - needed]:
            deletion |= await self._objects.delete(ready)
        return deletion

    async def mask(self, job: Job, intent: Intent, deletion: Deletion) -> Job | None:
        """Mask the rows whose objects are gone, with progress, totals and event, in one commit.

        A hold that arrived after the intent was committed does not stop it.
        """
        async with self._engine.begin() as connection:
            await jobs.limit_lock_waits(connection)
            locked: Job | None
            if intent.batch:
                locked = await jobs.lock(connection, job.job_id, job.generation)
            else:
                locked = await self._fence.begin(connection, job)
            if locked is None:
                return None
            done = deletion.done
            confirmed = [row for row in intent.rows if {*row.delete, *row.delete_last} <= done]
            masked = await self._mask_rows(connection, intent, confirmed)
            blocked = left_behind(locked, intent, confirmed, masked, deletion)
            new = await progress.count_new(
                connection, job.job_id, done.union(intent.missing), intent.missing
            )
            last = {ref for row in confirmed for ref in row.delete_last}
            await progress.remember_last(connection, job.job_id, last)
            changed = set(masked.changed)
            unchanged = [row for row in confirmed if row not in changed]
            locked, named = await self._references.let_go(
                connection, self._journal, locked, intent, unchanged
            )
            absent = frozenset(intent.missing)
            delta = TypeTotals(
                feature_rows=masked.feature_rows,
                task_rows=masked.task_rows,
                objects_gone=len(new & deletion.gone - absent),
                objects_missing=len(new & absent),
                objects_scheduled=len(new & deletion.scheduled - absent),
                objects_kept=named + sum(row.kept for row in confirmed if row not in changed),
            )
            after = await self._record(connection, locked, intent, blocked, delta)
            await self._journal_outcome(connection, after, intent, deletion)
            deferred = len(changed) if locked.round < MAX_ROUNDS else 0
            await self._advance(connection, after, intent, deferred)
        self._count(intent, masked, blocked, delta)
        self._metrics.objects("gone", new & deletion.gone - absent)
        self._metrics.objects("missing", new & absent)
        self._metrics.objects("scheduled", new & deletion.scheduled - absent)
        return after

    async def _mask_rows(
        self, connection: AsyncConnection, intent: Intent, rows: Sequence[RowTarget]
    ) -> Masked:
        if not rows:
            return Masked(0, 0, ())
        handler = self._handlers(intent.page.request_type)
        if handler is None:
            raise LookupError("the catalog lost a request type while its batch was open")
        return await handler.erase(connection, intent.page.request_type, rows)

    async def _record(
        self,
        connection: AsyncConnection,
        job: Job,
        intent: Intent,
        blocked: Sequence[Blocked],
        delta: TypeTotals,
    ) -> Job:
        """Write totals and what is left behind, and say so if anything changed."""
        batch = intent.batch or job.batches + 1
        await progress.record_blocked(
            connection, job.job_id, job.round, intent.batch or None, blocked
        )
        by_type = await progress.blocked_by_type(connection, job.job_id)
        totals = add(job.totals, intent.page.request_type, delta)
        totals = with_blocked(totals, by_type, final=False)
        said: list[Said] = []
        after = replace(job, totals=totals, attempts=0)
        if totals != job.totals:
            after = replace(after, batches=max(batch, after.batches))
            event = BatchErased(
                job_id=job.job_id,
                request_ids=job.spoken_of,
                totals=totals,
                request_type=intent.page.request_type,
                batch=batch,
            )
            after, one = say(after, event)
            said.append(one)
            if after.state in {JobState.HELD, JobState.BLOCKED}:
                # What stopped the job is the last word: the batch was begun before it.
                holds = await jobs.holds_on(connection, after.subject_ref)
                after, one = say(after, after.snapshot(holds))
                said.append(one)
        await jobs.write(connection, after)
        await self._announcer.announce(connection, said)
        return after

    async def _journal_outcome(
        self, connection: AsyncConnection, job: Job, intent: Intent, deletion: Deletion
    ) -> None:
        if not intent.batch:
            return
        failed = tuple(ref for ref in intent.refs if ref not in deletion.done)
        scheduled = tuple(ref for ref in intent.refs if ref in deletion.scheduled)
        if failed or scheduled or intent.if_unreferenced:
            outcome = replace(intent, failed=failed, scheduled=scheduled)
            await self._journal.write(connection, job.job_id, job.round, outcome)
        await self._journal.mark_masked(connection, job.job_id, intent.batch)

    async def _advance(
        self, connection: AsyncConnection, job: Job, intent: Intent, deferred: int
    ) -> None:
        if intent.page.source == OBJECTS_ONLY:
            return
        end = replace(intent.page, after=intent.end)
        await progress.advance(
            connection, job.job_id, job.round, end, done=intent.done, deferred=deferred
        )

    async def _revive(
        self, connection: AsyncConnection, job: Job, blocked: Sequence[BlockedRow]
    ) -> tuple[list[RowTarget], list[BlockedRow]]:
        """Take rows back whose missing object is missing because this job deleted it."""
        missing = [row.missing for row in blocked if row.missing is not None]
        ours = await progress.deleted_last(connection, job.job_id, missing)
        left = [row for row in blocked if row.missing not in ours]
        revived = [
            RowTarget(
                kind=row.kind,
                table=row.table,
                row_id=row.row_id,
                row_version=row.row_version,
                request_id=row.request_id,
                delete=(),
                delete_last=(row.missing,),
                kept=0,
            )
            for row in blocked
            if row.missing is not None and row.missing in ours
        ]
        return revived, left

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection without a transaction: finding may wait for S3, and must hold nothing."""
        async with self._engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    def _label(self, request_type: str) -> str:
        return UNKNOWN_TYPE_LABEL if self._handlers(request_type) is None else request_type

    def _count(
        self,
        intent: Intent,
        masked: Masked,
        blocked: Sequence[Blocked],
        delta: TypeTotals,
    ) -> None:
        label = self._label(intent.page.request_type)
        self._metrics.rows("feature", label, masked.feature_rows)
        self._metrics.rows("task", label, masked.task_rows)
        self._metrics.kept(delta.objects_kept)
        self._metrics.blocked(row.reason for row in blocked)
