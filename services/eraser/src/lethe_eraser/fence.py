"""The one way to begin something with a job: under its lock, its generation and all holds.

Where the catalog says how, it is asked each time whether the person is a customer again.
"""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.domain import RUNNABLE, Job, JobState, say
from lethe_eraser.storage import control, jobs
from lethe_eraser.storage.accounts import Accounts
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.progress import blocked_by_reason
from lethe_outbox import bucket_of


class Fence:
    """Lets something begin with a job, or says that it may not.

    Args:
        announcer: appends events.
        control_fresh: how old a watermark may be under which anything begins.
        accounts: knows who is a customer; None if the catalog does not say where to ask.
    """

    def __init__(
        self, announcer: Announcer, control_fresh: timedelta, accounts: Accounts | None = None
    ) -> None:
        self._announcer = announcer
        self._control_fresh = control_fresh
        self._accounts = accounts

    async def begin(self, connection: AsyncConnection, job: Job) -> Job | None:
        """Lock the job and read it anew, with holds; None if nothing may begin any more.

        A hold that the job does not know of yet is applied and announced in this transaction, and
        so is that the person is a customer again, so commit it in either case. Nothing begins while
        a hold may be stuck on its way: with a watermark that is too old, or a record of the
        person's bucket in quarantine.

        Raises:
            TakenOverError: another executor has the job.
        """
        locked = await jobs.lock(connection, job.job_id, job.generation)
        if locked.state not in RUNNABLE or locked.paused:
            return None
        holds = await jobs.holds_on(connection, locked.subject_ref)
        if holds:
            held = locked.to(JobState.HELD)
            held, said = say(held, held.snapshot(holds))
            await jobs.write(connection, held)
            await self._announcer.announce(connection, [said])
            return None
        bucket = bucket_of(locked.subject_ref)
        if not await control.fresh(connection, bucket, self._control_fresh):
            return None
        if self._accounts is not None and await self._accounts.is_active(connection, locked):
            blocked = locked.subject_active(await blocked_by_reason(connection, locked.job_id))
            blocked, said = say(blocked, blocked.snapshot())
            await jobs.write(connection, blocked)
            await self._announcer.announce(connection, [said])
            return None
        return locked
