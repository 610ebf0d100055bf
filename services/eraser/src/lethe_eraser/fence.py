"""The one way to begin something with a job: under its lock, its generation and all holds."""

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.domain import RUNNABLE, Job, JobState, say
from lethe_eraser.storage import jobs
from lethe_eraser.storage.events import Announcer


async def begin(connection: AsyncConnection, announcer: Announcer, job: Job) -> Job | None:
    """Lock the job and read it anew, with holds; None if nothing may begin any more.

    A hold that the job does not know of yet is applied and announced in this transaction, so commit
    it in either case.

    Raises:
        TakenOverError: another executor has the job.
    """
    locked = await jobs.lock(connection, job.job_id, job.generation)
    if locked.state not in RUNNABLE:
        return None
    holds = await jobs.holds_on(connection, locked.subject_ref)
    if not holds:
        return locked
    held = locked.to(JobState.HELD)
    held, said = say(held, held.snapshot(holds))
    await jobs.write(connection, held)
    await announcer.announce(connection, [said])
    return None
