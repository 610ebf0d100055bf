"""Job rows: taking one, writing under its fence, and reading it with its requests."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.events import TypeTotals
from lethe_contracts.states import BlockReason
from lethe_eraser.domain import RUNNABLE, TURN_BATCHES, UNFINISHED, Job, JobState, Request
from lethe_eraser.storage.arrays import one_of
from lethe_eraser.storage.control import is_fresh
from lethe_eraser.storage.tables import hold, job, job_request

_LOCK_SECONDS: Final = 5
_STATEMENT_SECONDS: Final = 60
_ACTIVE, _CANCELLED = "active", "cancelled"


class TakenOverError(Exception):
    """Another executor took the job: nothing of this one's may be written any more."""


async def claim(
    connection: AsyncConnection,
    buckets: Collection[int],
    *,
    control_fresh: timedelta,
    in_window: bool = True,
    without: Collection[UUID] = (),
) -> Job | None:
    """Take the most urgent runnable job of `buckets`, fencing off who had it before.

    A person's later job waits for the earlier one; a job that is held or paused, is to be tried
    again later, or of whose person something may be stuck, is not runnable. Outside the window only
    jobs are that somebody wants to run now. Jobs of `without` are passed over.
    """
    candidate = (
        _runnable(buckets, control_fresh=control_fresh, in_window=in_window, without=without)
        .limit(1)
        .with_for_update(skip_locked=True, of=job)
    )
    taken = (
        update(job)
        .where(job.c.job_id == candidate.scalar_subquery())
        .values(generation=job.c.generation + 1)
        .returning(job)
    )
    row = (await connection.execute(taken)).mappings().one_or_none()
    return None if row is None else await _with_requests(connection, row)


async def most_urgent(
    connection: AsyncConnection,
    buckets: Collection[int],
    *,
    control_fresh: timedelta,
    in_window: bool = True,
    without: Collection[UUID] = (),
) -> Job | None:
    """Give the job that `claim` would take, and leave it."""
    candidate = _runnable(
        buckets, control_fresh=control_fresh, in_window=in_window, without=without
    ).limit(1)
    ids = list((await connection.execute(candidate)).scalars())
    return next(iter((await of_ids(connection, ids)).values()), None)


def _runnable(
    buckets: Collection[int],
    *,
    control_fresh: timedelta,
    in_window: bool,
    without: Collection[UUID],
) -> Select[UUID]:
    """Select the ids of jobs that may run now, in the order of `Job.urgency`."""
    # The window as it is now: what was foretold at acceptance may have been widened since.
    due = true() if in_window else job.c.run_now
    earlier = job.alias()
    return (
        select(job.c.job_id)
        .where(
            one_of(job.c.bucket, buckets),
            job.c.state.in_(RUNNABLE),
            due,
            ~job.c.paused,
            is_fresh(job.c.bucket, control_fresh),
            or_(job.c.retry_at.is_(None), job.c.retry_at <= func.now()),
            ~one_of(job.c.job_id, without),
            ~exists().where(
                earlier.c.subject_ref == job.c.subject_ref,
                earlier.c.job_id != job.c.job_id,
                earlier.c.created_at < job.c.created_at,
                earlier.c.state.in_(UNFINISHED),
            ),
        )
        .order_by(job.c.batches >= TURN_BATCHES, job.c.deadline, job.c.created_at, job.c.job_id)
    )


async def lock(connection: AsyncConnection, job_id: UUID, generation: int) -> Job:
    """Lock the job row for this transaction; the first statement of every write to a job.

    Raises:
        TakenOverError: the job's generation is not `generation` any more.
    """
    fenced = (
        update(job)
        .where(job.c.job_id == job_id, job.c.generation == generation)
        .values(generation=generation)
        .returning(job)
    )
    row = (await connection.execute(fenced)).mappings().one_or_none()
    if row is None:
        raise TakenOverError
    return await _with_requests(connection, row)


async def lock_unfenced(connection: AsyncConnection, job_id: UUID) -> Job | None:
    """Lock the job row on behalf of somebody who is no executor; None if there is none."""
    query = select(job).where(job.c.job_id == job_id).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else await _with_requests(connection, row)


async def limit_lock_waits(connection: AsyncConnection) -> None:
    """Let this transaction wait a few seconds for a row the product has locked, at most.

    And let none of its statements run for longer than a minute: it holds locks of the product.
    """
    await connection.execute(
        text(
            f"select set_config('lock_timeout', '{_LOCK_SECONDS}s', true),"
            f" set_config('statement_timeout', '{_STATEMENT_SECONDS}s', true)"
        )
    )


async def write(
    connection: AsyncConnection, changed: Job, *, retry_in: timedelta | None = None
) -> None:
    """Write a job that was read under its lock; `retry_in` keeps executors off it for that long."""
    retry_at = None if retry_in is None else func.now() + literal(retry_in)
    await _write(connection, changed, retry_at=retry_at)


async def write_told(connection: AsyncConnection, changed: Job) -> None:
    """Write what intake said of a job that was read under its lock; how long it waits stays."""
    await _write(connection, changed)


async def _write(connection: AsyncConnection, changed: Job, **more: Any) -> None:
    values = {**_values(changed), **more}
    if changed.state is JobState.RUNNING:
        values["started_at"] = func.coalesce(job.c.started_at, func.now())
    if changed.state.is_final:
        values |= {"closed_at": func.coalesce(job.c.closed_at, func.now()), "retry_at": None}
    await connection.execute(update(job).where(job.c.job_id == changed.job_id).values(values))


async def write_flags(connection: AsyncConnection, changed: Job) -> None:
    """Write what an operator wants of a job that was read under its lock, and nothing else."""
    await connection.execute(
        update(job)
        .where(job.c.job_id == changed.job_id)
        .values(paused=changed.paused, run_now=changed.run_now)
    )


async def insert_jobs(connection: AsyncConnection, jobs: Mapping[UUID, Job], bucket: int) -> None:
    """Insert new jobs of one person."""
    rows = [
        {
            "job_id": job_id,
            "subject_ref": new.subject_ref,
            "bucket": bucket,
            "created_at": new.created_at,
            "closed_at": new.created_at if new.state.is_final else None,
            **_values(new),
        }
        for job_id, new in jobs.items()
    ]
    if rows:
        await connection.execute(insert(job), rows)


async def write_requests(
    connection: AsyncConnection, job_id: UUID, requests: Iterable[Request]
) -> None:
    """Insert or update requests of a job."""
    rows = [
        {
            "request_id": request.request_id,
            "job_id": job_id,
            "attempt": request.attempt,
            "deadline": request.deadline,
            "requested_at": request.requested_at,
            "state": _CANCELLED if request.cancelled else _ACTIVE,
        }
        for request in requests
    ]
    if not rows:
        return
    new = insert(job_request)
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=[job_request.c.request_id],
            set_={"attempt": new.excluded.attempt, "state": new.excluded.state},
        ),
        rows,
    )


async def of_people(
    connection: AsyncConnection, subject_refs: Sequence[str]
) -> dict[str, list[Job]]:
    """Read and lock every job of these people, oldest first."""
    rows = (
        await connection.execute(
            select(job)
            .where(one_of(job.c.subject_ref, subject_refs))
            .order_by(job.c.subject_ref, job.c.created_at, job.c.job_id)
            .with_for_update()
        )
    ).mappings()
    found = rows.all()
    requests = await _requests(connection, [row["job_id"] for row in found])
    jobs: defaultdict[str, list[Job]] = defaultdict(list)
    for row in found:
        jobs[row["subject_ref"]].append(_job(row, requests[row["job_id"]]))
    return dict(jobs)


async def of_ids(connection: AsyncConnection, job_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """Read jobs, without a lock."""
    found = await connection.execute(select(job).where(one_of(job.c.job_id, job_ids)))
    rows = found.mappings().all()
    requests = await _requests(connection, job_ids)
    return {row["job_id"]: _job(row, requests[row["job_id"]]) for row in rows}


async def open_of_person(connection: AsyncConnection, subject_ref: str) -> bool:
    """Say whether a job of the person is unfinished."""
    found = select(exists().where(job.c.subject_ref == subject_ref, job.c.state.in_(UNFINISHED)))
    return bool((await connection.execute(found)).scalar_one())


async def earlier_of_person(connection: AsyncConnection, of: Job) -> UUID | None:
    """Find the unfinished job of the same person that goes before this one, if there is one."""
    found = (
        select(job.c.job_id)
        .where(
            job.c.subject_ref == of.subject_ref,
            job.c.job_id != of.job_id,
            job.c.created_at < of.created_at,
            job.c.state.in_(UNFINISHED),
        )
        .order_by(job.c.created_at)
        .limit(1)
    )
    return (await connection.execute(found)).scalar_one_or_none()


async def holds_on(connection: AsyncConnection, subject_ref: str) -> frozenset[UUID]:
    """Read the legal holds on a person."""
    found = await connection.execute(
        select(hold.c.hold_id).where(hold.c.subject_ref == subject_ref)
    )
    return frozenset(found.scalars())


async def count_by_state(connection: AsyncConnection) -> dict[JobState, int]:
    """Count all jobs; a state without any counts 0."""
    found = await connection.execute(select(job.c.state, func.count()).group_by(job.c.state))
    counted = dict.fromkeys(JobState, 0)
    counted.update({JobState(state): count for state, count in found})
    return counted


def _values(of: Job) -> dict[str, Any]:
    return {
        "state": of.state,
        "held_from": of.held_from,
        "scanning": of.scanning,
        "sequence": of.sequence,
        "subject_ciphertext": of.subject,
        "deadline": of.deadline,
        "not_before": of.not_before,
        "round": of.round,
        "batches": of.batches,
        "attempts": of.attempts,
        "paused": of.paused,
        "run_now": of.run_now,
        "totals": {name: totals.model_dump() for name, totals in of.totals.items()},
        "reasons": {str(reason): rows for reason, rows in of.reasons.items()},
        "locked_until": of.locked_until,
        "error": of.error,
        "retried_at": of.retried_at,
        "traceparent": of.traceparent,
    }


async def _with_requests(connection: AsyncConnection, row: RowMapping) -> Job:
    requests = await _requests(connection, [row["job_id"]])
    return _job(row, requests[row["job_id"]])


async def _requests(
    connection: AsyncConnection, job_ids: Sequence[UUID]
) -> defaultdict[UUID, dict[UUID, Request]]:
    named: ColumnElement[bool] = one_of(job_request.c.job_id, job_ids)
    requests: defaultdict[UUID, dict[UUID, Request]] = defaultdict(dict)
    if not job_ids:
        return requests
    for row in (await connection.execute(select(job_request).where(named))).mappings():
        requests[row["job_id"]][row["request_id"]] = Request(
            request_id=row["request_id"],
            attempt=row["attempt"],
            deadline=_utc(row["deadline"]),
            requested_at=_utc(row["requested_at"]),
            cancelled=row["state"] == _CANCELLED,
        )
    return requests


def _job(row: RowMapping, requests: Mapping[UUID, Request]) -> Job:
    return Job(
        job_id=row["job_id"],
        subject_ref=row["subject_ref"],
        state=JobState(row["state"]),
        held_from=None if row["held_from"] is None else JobState(row["held_from"]),
        scanning=row["scanning"],
        subject=row["subject_ciphertext"],
        not_before=_utc(row["not_before"]),
        created_at=_utc(row["created_at"]),
        generation=row["generation"],
        sequence=row["sequence"],
        round=row["round"],
        batches=row["batches"],
        attempts=row["attempts"],
        paused=row["paused"],
        run_now=row["run_now"],
        totals={name: TypeTotals.model_validate(totals) for name, totals in row["totals"].items()},
        reasons={BlockReason(reason): rows for reason, rows in row["reasons"].items()},
        locked_until=None if row["locked_until"] is None else _utc(row["locked_until"]),
        error=row["error"],
        retried_at=None if row["retried_at"] is None else _utc(row["retried_at"]),
        traceparent=row["traceparent"],
        requests=requests,
    )


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
