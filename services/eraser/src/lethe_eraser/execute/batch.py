"""One batch in four steps: collect, commit the intent, delete from S3, mask with its event.

A batch spans request types and client tables. No transaction is open while S3 works. A crash after
any step is finished from the journal: the plan that was committed is carried out, never a new one
made of what is left.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_contracts.events import BatchErased, TypeTotals
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import (
    MAX_ROUNDS,
    Job,
    JobState,
    Masked,
    ObjectRef,
    Said,
    add,
    say,
    with_blocked,
)
from lethe_eraser.execute.ahead import Ahead
from lethe_eraser.execute.collecting import Collector, Finder, Handlers, Underway
from lethe_eraser.execute.left_behind import left_behind, without_doubted
from lethe_eraser.execute.references import NOBODY_ELSE, References
from lethe_eraser.execute.tally import Tally, confirmed, rewritten, rewritten_refs
from lethe_eraser.fence import Fence
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.objects import NOTHING, Deletion, Held
from lethe_eraser.pace import RowBudget
from lethe_eraser.storage import counted, jobs, progress
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.storage.progress import Blocked

UNKNOWN_TYPE_LABEL: Final = "unknown"


class Deleter(Finder, Protocol):
    """What a batch needs of the object store."""

    async def delete(self, refs: Sequence[ObjectRef], held: Held | None = None) -> Deletion:
        """Delete every version of `refs`, those in `held` if they hold nothing else.

        Raises while the store is away.
        """
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
        budget: how many rows of all persons are masked per second.
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
        budget: RowBudget,
        references: References = NOBODY_ELSE,
    ) -> None:
        self._engine = engine
        self._handlers = handlers
        self._objects = objects
        self._journal = journal
        self._announcer = announcer
        self._fence = fence
        self._metrics = metrics
        self._references = references
        self.budget = budget
        self._collector = Collector(
            engine=engine,
            sources=sources,
            handlers=handlers,
            objects=objects,
            batch_rows=batch_rows,
        )

    async def ahead(self, job: Job, subject: str) -> Ahead:
        """See what of the job's round is still to be read."""
        return await self._collector.ahead(job, subject)

    async def finish(self, job: Job, intent: Intent) -> Job | None:
        """Carry out an intent: delete, then mask. The same intent twice is the intent once."""
        began = time.monotonic()
        if intent.if_unreferenced:
            intent = await self._references.without_referenced(self._engine, intent)
        deletion = await self.delete(intent)
        after = await self.mask(job, intent, deletion)
        if after is not None:
            self.count(intent, began)
        return after

    def count(self, intent: Intent, began: float) -> None:
        """Count a committed batch; it `began` at that reading of the monotonic clock."""
        if intent.rows or intent.objects:
            self._metrics.batch(self._label(intent.request_type), time.monotonic() - began)

    async def let_go(self, job: Job, intent: Intent) -> list[Intent]:
        """Give the intents, oldest first, to delete what the masked batch was the last to name."""
        if not any(row.unless_referenced for row in intent.rows):
            return []
        async with self._engine.connect() as connection:
            pending = await self._journal.pending(connection, job.job_id)
        return [one for one in pending if one.if_unreferenced]

    async def collect(
        self, job: Job, subject: str, ahead: Ahead, underway: Underway = tuple
    ) -> Intent:
        """Find the next batch's rows and objects, in no transaction; it has no number yet."""
        return await self._collector.collect(job, subject, ahead, underway)

    async def intend(self, job: Job, plan: Intent) -> tuple[Job, Intent] | None:
        """Commit the plan to the journal; None if no batch may begin."""
        async with self._engine.begin() as connection:
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.RUNNING:
                return None
            locked = replace(locked, batches=locked.batches + 1)
            intent = replace(plan, batch=locked.batches)
            if plan.missing:
                doubted = await counted.missing_too_often(
                    connection, job.job_id, plan.refs, plan.missing
                )
                intent = without_doubted(intent, doubted)
            await self._journal.write(connection, job.job_id, locked.round, intent)
            await jobs.write(connection, locked)
        return locked, intent

    async def delete(self, intent: Intent) -> Deletion:
        """Delete the batch's objects, and say what became of them."""
        refs, rows, held = intent.refs, intent.rows, intent.held
        last = {ref for row in rows for ref in row.delete_last}.union(held)
        first = [ref for ref in refs if ref not in last]
        deletion = await self._objects.delete(first) if first else NOTHING
        if not last:
            return deletion
        # What others are found through goes only when nothing is found through it any more.
        tried = deletion.done | last
        needed = {
            ref for row in rows if not tried.issuperset(row.delete) for ref in row.delete_last
        }
        needed |= {
            one.ref
            for part in intent.found
            if part.as_read and not tried.issuperset(part.objects)
            for one in part.as_read
        }
        if ready := [ref for ref in refs if ref in last - needed]:
            deletion |= await self._objects.delete(ready, held)
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
            tally = Tally(confirmed(intent, deletion), rewritten(intent, deletion))
            tally = replace(tally, masked=await self._mask_rows(connection, tally))
            blocked = left_behind(locked, intent, tally, deletion)
            missing = frozenset(intent.missing)
            new = await counted.count_new(connection, job.job_id, deletion.done | missing, missing)
            last = {ref for row in chain(*tally.confirmed.values()) for ref in row.delete_last}
            await counted.remember_last(connection, job.job_id, last)
            locked, named = await self._references.let_go(
                connection, self._journal, locked, intent, tally.rows
            )
            totals = tally.totals(intent, deletion, new, named)
            after = await self._record(connection, locked, intent, blocked, totals)
            await self._journal_outcome(connection, after, intent, deletion)
            await self._advance(connection, after, intent, tally)
        self._count(tally, blocked, totals)
        self._metrics.objects("gone", new & deletion.gone - missing)
        self._metrics.objects("missing", new & missing)
        self._metrics.objects("scheduled", new & deletion.scheduled - missing)
        return after

    async def _mask_rows(self, connection: AsyncConnection, tally: Tally) -> dict[str, Masked]:
        masked = {}
        for request_type, rows in tally.confirmed.items():
            if not rows:
                continue
            handler = self._handlers(request_type)
            if handler is None:
                raise LookupError("the catalog lost a request type while its batch was open")
            masked[request_type] = await handler.erase(connection, request_type, rows)
        return masked

    async def _record(
        self,
        connection: AsyncConnection,
        job: Job,
        intent: Intent,
        blocked: Sequence[Blocked],
        done: Mapping[str, TypeTotals],
    ) -> Job:
        """Write totals and what is left behind, and say so if anything changed."""
        batch = intent.batch or job.batches + 1
        await progress.record_blocked(
            connection, job.job_id, job.round, intent.batch or None, blocked
        )
        by_type = await progress.blocked_by_type(connection, job.job_id)
        totals = dict(job.totals)
        for request_type, delta in done.items():
            totals = add(totals, request_type, delta)
        totals = with_blocked(totals, by_type, final=False)
        said: list[Said] = []
        after = replace(job, totals=totals, attempts=0)
        if totals != job.totals:
            after = replace(after, batches=max(batch, after.batches))
            event = BatchErased(
                job_id=job.job_id,
                request_ids=job.spoken_of,
                totals=totals,
                request_type=intent.request_type,
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
        refs, done = intent.refs, deletion.done
        # What is to be read again is looked for by the verification, should no row lead to it then.
        again = rewritten_refs(deletion) if job.round < MAX_ROUNDS else frozenset()
        failed = tuple(ref for ref in refs if ref not in done and ref not in again)
        scheduled = tuple(ref for ref in refs if ref in deletion.scheduled)
        if failed or scheduled or intent.if_unreferenced:
            outcome = replace(intent, failed=failed, scheduled=scheduled)
            await self._journal.write(connection, job.job_id, job.round, outcome, masked=True)
        else:
            await self._journal.mark_masked(connection, job.job_id, intent.batch)

    async def _advance(
        self, connection: AsyncConnection, job: Job, intent: Intent, tally: Tally
    ) -> None:
        again = job.round < MAX_ROUNDS
        deferred = {
            part.request_type: len(tally.for_later(part.request_type)) if again else 0
            for part in intent.found
        }
        await progress.advance(connection, job.job_id, job.round, intent.stretches, deferred)

    def _label(self, request_type: str) -> str:
        return UNKNOWN_TYPE_LABEL if self._handlers(request_type) is None else request_type

    def _count(
        self, tally: Tally, blocked: Sequence[Blocked], totals: Mapping[str, TypeTotals]
    ) -> None:
        for request_type, masked in tally.masked.items():
            self._metrics.rows("feature", request_type, masked.feature_rows)
            self._metrics.rows("task", request_type, masked.task_rows)
        self._metrics.kept(sum(of_type.objects_kept for of_type in totals.values()))
        self._metrics.blocked(row.reason for row in blocked)
