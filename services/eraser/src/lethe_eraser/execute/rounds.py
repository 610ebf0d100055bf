"""One job from where it stands to its end: rounds of batches, then verification.

Everything it needs to go on is in the job row, its progress and its journal, so it may be cut off
anywhere and begun again by anybody.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.cipher import Cipher
from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import MAX_ROUNDS, Job, JobState, say, with_blocked
from lethe_eraser.execute.batch import Batches
from lethe_eraser.execute.pipeline import MayGoOn, Pipeline
from lethe_eraser.fence import Fence
from lethe_eraser.storage import jobs, progress
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.verify import Verification

ROUND_PAUSE: Final = timedelta(seconds=5)
"""Pause before the second round; it doubles with every further one, so that writers can finish."""

_log = structlog.get_logger(__name__)


class Rounds:
    """Runs one job.

    Args:
        engine: the product's database.
        sources: the client tables, in the order they are worked through.
        cipher: opens the job's subject.
        batches: erases a batch.
        verification: the second scan.
        journal: unfinished intents.
        announcer: appends events.
        fence: lets something begin with a job.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        sources: Iterable[ClientTable],
        cipher: Cipher,
        batches: Batches,
        verification: Verification,
        journal: Journal,
        announcer: Announcer,
        fence: Fence,
    ) -> None:
        self._engine = engine
        self._sources = tuple(sources)
        self._cipher = cipher
        self._batches = batches
        self._verification = verification
        self._journal = journal
        self._announcer = announcer
        self._fence = fence

    async def run(self, job: Job, may_go_on: MayGoOn) -> Job | None:
        """Work on the job until it ended, must wait, or `may_go_on` says no at a batch boundary.

        Returns:
            The job as far as it came, or None if a hold or another word of intake stopped it.

        Raises:
            TakenOverError: another executor has the job.
            UndecryptableError: the key ring cannot open its subject.
        """
        subject = self._cipher.decrypt(job.subject or "", context=job.subject_ref).decode()
        going: Job | None = job
        if job.state is JobState.ACCEPTED:
            going = await self._start(job)
        while going is not None and not going.state.is_final and may_go_on(going):
            before = going
            if going.state is JobState.RUNNING:
                going = await self._round(going, subject, may_go_on)
            else:
                going = await self._verification.run(going, subject, partial(may_go_on, going))
            if going is None or going.state is before.state or going.round != before.round:
                return going
        return going

    async def _start(self, job: Job) -> Job | None:
        async with self._engine.begin() as connection:
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.ACCEPTED:
                return locked
            started = locked.to(JobState.RUNNING)
            started, said = say(started, started.snapshot())
            await jobs.write(connection, started)
            await self._announcer.announce(connection, [said])
        _log.info("job started", job_id=str(job.job_id), subject_ref=job.subject_ref)
        return started

    async def _round(self, job: Job, subject: str, may_go_on: MayGoOn) -> Job | None:
        going: Job | None = job
        # Finishing one may leave another: the delete of what its rows were the last to name.
        while pending := await self._pending(job):
            for intent in pending:
                if going is None:
                    return None
                begins = partial(may_go_on, going)
                if not await self._batches.budget.take(len(intent.rows), begins):
                    return going
                going = await self._batches.finish(going, intent)
                if going is not None and going.state is not JobState.RUNNING:
                    return None
        if going is None:
            return None
        ahead = await self._batches.ahead(going, subject)
        outcome = await Pipeline(self._batches, going, subject, ahead, may_go_on).run()
        if outcome is None:
            return None
        going, finished = outcome
        return await self._end_round(going) if finished else going

    async def _pending(self, job: Job) -> list[Intent]:
        async with self._engine.connect() as connection:
            return await self._journal.pending(connection, job.job_id)

    async def _end_round(self, job: Job) -> Job | None:
        async with self._engine.begin() as connection:
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.RUNNING:
                return None
            await progress.unblock(connection, job.job_id, before_round=locked.round)
            steps = await progress.steps(connection, job.job_id, locked.round)
            deferred = sum(step.deferred for step in steps.values())
            # The share of what is missing is known when everything was counted once.
            doubted = locked.round == 1 and await progress.blocked_in_round(
                connection, job.job_id, 1, BlockReason.TOO_MANY_MISSING
            )
            if (deferred or doubted) and locked.round < MAX_ROUNDS:
                again = replace(locked, round=locked.round + 1)
                await progress.try_refused_again(connection, job.job_id)
                pause = ROUND_PAUSE * 2 ** (locked.round - 1)
                await jobs.write(connection, again, retry_in=pause)
                return again
            blocked = await progress.blocked_by_type(connection, job.job_id)
            totals = with_blocked(locked.totals, blocked, final=True)
            erased = replace(locked.to(JobState.ERASED), scanning=True, totals=totals)
            erased, said = say(erased, erased.snapshot())
            await jobs.write(connection, erased)
            await self._announcer.announce(connection, [said])
        _log.info("job erased", job_id=str(job.job_id), subject_ref=job.subject_ref)
        return erased
