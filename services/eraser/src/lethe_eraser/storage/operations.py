"""What operators ask of jobs: a list, one of them whole, and a word that an executor obeys."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.domain import UNFINISHED, Job, JobState, say
from lethe_eraser.storage import control, invalidations, jobs, people, progress
from lethe_eraser.storage.arrays import one_of
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.tables import hold, job, watermark
from lethe_outbox import bucket_of


@dataclass(frozen=True, slots=True)
class Standing:
    """A job as an operator sees it.

    Attributes:
        job: as the executor knows it.
        bucket: whose partition's executor takes it.
        retry_at: before that nobody takes it.
        started_at: when its first batch began.
        closed_at: when it ended.
        holds: legal holds on its person.
        settled_until: the newest watermark of its bucket.
        quarantined: records in quarantine that stop its bucket.
        blocked: rows left, by reason.
        pages: how far each request type came in each client table, in this round.
        waits_for: an earlier job of the same person, which goes first.
        invalidations: those of the CDN that are not finished; the job stays `erased` until then.
    """

    job: Job
    bucket: int
    retry_at: datetime | None
    started_at: datetime | None
    closed_at: datetime | None
    holds: int
    settled_until: datetime | None
    quarantined: int
    blocked: Mapping[BlockReason, int]
    pages: Sequence[progress.Step]
    waits_for: UUID | None
    invalidations: int


@dataclass(frozen=True, slots=True)
class Obeyed:
    """The job will do as it was told; `changed` is False if it did already."""

    changed: bool
    stopped_by: tuple[str, ...] = ()
    """What keeps it from going on all the same, and what ends that."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The job cannot do that, and why."""

    why: str


Answer = Obeyed | Refused | None
"""None: there is no such job."""


async def listed(
    connection: AsyncConnection, states: Collection[JobState], *, overdue: bool, most: int
) -> list[Job]:
    """List jobs in any of `states`, the earliest deadline first; only late ones if `overdue`."""
    query = select(job.c.job_id).where(job.c.state.in_(list(states)))
    if overdue:
        query = query.where(job.c.deadline < func.now(), job.c.state.in_(_OWED))
    query = query.order_by(job.c.deadline, job.c.created_at, job.c.job_id).limit(most)
    ids = list((await connection.execute(query)).scalars())
    found = await jobs.of_ids(connection, ids)
    return [found[id_] for id_ in ids]


_RETRIED = (JobState.BLOCKED, JobState.FAILED)
_OWED = (*UNFINISHED, *_RETRIED)


async def standing(connection: AsyncConnection, job_id: UUID) -> Standing | None:
    """Read one job with everything that may stop it."""
    row = (await connection.execute(select(job).where(job.c.job_id == job_id))).one_or_none()
    if row is None:
        return None
    found = (await jobs.of_ids(connection, [job_id]))[job_id]
    holds = select(func.count()).where(hold.c.subject_ref == found.subject_ref)
    settled = select(watermark.c.settled_until).where(watermark.c.bucket == row.bucket)
    steps = await progress.steps(connection, job_id, found.round)
    return Standing(
        job=found,
        bucket=row.bucket,
        retry_at=row.retry_at,
        started_at=row.started_at,
        closed_at=row.closed_at,
        holds=(await connection.execute(holds)).scalar_one(),
        settled_until=(await connection.execute(settled)).scalar_one_or_none(),
        quarantined=await control.count_unread(connection, row.bucket),
        blocked=await progress.blocked_by_reason(connection, job_id),
        pages=[steps[key] for key in sorted(steps)],
        waits_for=await jobs.earlier_of_person(connection, found),
        invalidations=await invalidations.unfinished_of(connection, job_id),
    )


async def are_laid(connection: AsyncConnection) -> bool:
    """Say whether the product's database has the eraser's tables."""
    found = await connection.execute(select(func.to_regclass(f"{job.schema}.{job.name}")))
    return found.scalar_one() is not None


async def newest_of(connection: AsyncConnection, refs: Sequence[str]) -> Job | None:
    """Find the newest job of a person, who may have been kept under several references."""
    newest = (
        select(job.c.job_id)
        .where(one_of(job.c.subject_ref, refs))
        .order_by(job.c.created_at.desc(), job.c.job_id.desc())
        .limit(1)
    )
    job_id = (await connection.execute(newest)).scalar_one_or_none()
    return None if job_id is None else (await jobs.of_ids(connection, [job_id]))[job_id]


async def count_holds(connection: AsyncConnection, refs: Sequence[str]) -> int:
    """Count the legal holds on a person, under any of these references."""
    count = select(func.count()).where(one_of(hold.c.subject_ref, refs))
    return int((await connection.execute(count)).scalar_one())


async def pause(connection: AsyncConnection, job_id: UUID, *, paused: bool) -> Answer:
    """Let nothing more of a job begin, or let it go on; a batch that was begun is finished."""
    locked = await jobs.lock_unfenced(connection, job_id)
    if locked is None:
        return None
    if locked.state.is_final and (paused or not locked.paused):
        return Refused(_ended(locked))
    told = replace(locked, paused=paused)
    await jobs.write_flags(connection, told)
    stopped_by = () if paused else await _stopped_by(connection, told)
    return Obeyed(changed=locked.paused is not paused, stopped_by=stopped_by)


async def _stopped_by(connection: AsyncConnection, of: Job) -> tuple[str, ...]:
    """Say what keeps a job that was told to go on; whoever told it would wait in vain."""
    if of.state.is_final:
        return ()
    stops = ["it is paused; lethe eraser resume lets it go on"] if of.paused else []
    waits = select(job.c.retry_at).where(job.c.job_id == of.job_id, job.c.retry_at > func.now())
    if (until := (await connection.execute(waits)).scalar_one_or_none()) is not None:
        stops.append(
            f"it waits until {until.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z for its next try;"
            " lethe eraser retry ends that"
        )
    if held := len(await jobs.holds_on(connection, of.subject_ref)):
        stops.append(
            f"legal holds on its person: {held}; it goes on by itself when the last is released"
        )
    if unread := await control.count_unread(connection, bucket_of(of.subject_ref)):
        stops.append(f"records in quarantine: {unread}; see lethe eraser quarantine list")
    if (earlier := await jobs.earlier_of_person(connection, of)) is not None:
        stops.append(f"job {earlier} of the same person goes first")
    return tuple(stops)


def _ended(job: Job) -> str:
    if job.state in _RETRIED:
        return f"the job has ended ({job.state}); lethe eraser retry begins it anew"
    return f"the job has ended for good ({job.state})"


async def run_now(connection: AsyncConnection, job_id: UUID) -> Answer:
    """Let a job run at any hour, from now until it ends; holds and control stop it as ever."""
    locked = await jobs.lock_unfenced(connection, job_id)
    if locked is None:
        return None
    if locked.state.is_final:
        return Refused(_ended(locked))
    if locked.paused:
        return Refused("the job is paused; resume it first")
    await jobs.write_flags(connection, replace(locked, run_now=True))
    return Obeyed(changed=not locked.run_now, stopped_by=await _stopped_by(connection, locked))


async def retry(connection: AsyncConnection, announcer: Announcer, job_id: UUID) -> Answer:
    """Try a job again now: one that waits after errors, or one that ended blocked or failed."""
    known = await jobs.of_ids(connection, [job_id])
    if job_id not in known:
        return None
    # The person before the job, as those who listen to intake take them.
    await people.lock(connection, [known[job_id].subject_ref])
    locked = await jobs.lock_unfenced(connection, job_id)
    if locked is None:
        return None
    if not locked.state.is_final:
        await jobs.write(connection, replace(locked, attempts=0))
        return Obeyed(changed=True, stopped_by=await _stopped_by(connection, locked))
    if locked.state not in _RETRIED:
        return Refused(_ended(locked))
    if await jobs.open_of_person(connection, locked.subject_ref):
        return Refused("another job of the same person is open and finds the same; wait for it")
    await progress.rewind(connection, job_id)
    now = (await connection.execute(select(func.now()))).scalar_one()
    again = locked.again(now.astimezone(UTC))
    again, said = say(again, again.snapshot())
    await jobs.write(connection, again)
    await announcer.announce(connection, [said])
    return Obeyed(changed=True, stopped_by=await _stopped_by(connection, again))
