"""What a forecast is made of: how big the open jobs are, and how fast people were erased lately."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.events import TypeTotals
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import RUNNABLE, UNFINISHED, JobState, done_rows
from lethe_eraser.storage.arrays import one_of
from lethe_eraser.storage.client_rows import types_of
from lethe_eraser.storage.tables import erasing_pace, job

RECENT_HOURS: Final = 24
"""Hours in which something was erased that the rate is taken from, the newest ones."""

FEWEST_ROWS: Final = 100
"""Client rows below which nothing is said of a rate."""

KEEP: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Uncounted:
    """An open job nobody knows the size of yet, with its person as ciphertext."""

    job_id: UUID
    subject_ref: str
    subject: str


@dataclass(frozen=True, slots=True)
class OpenJob:
    """An open job; `rows` are the client rows that are left, None if they were not counted."""

    deadline: datetime
    batches: int
    rows: int | None


async def uncounted(
    connection: AsyncConnection, buckets: Collection[int], *, most: int
) -> list[Uncounted]:
    """Give jobs whose rows were not counted, the earliest deadline first."""
    query = (
        select(job.c.job_id, job.c.subject_ref, job.c.subject_ciphertext)
        .where(
            one_of(job.c.bucket, buckets),
            job.c.state.in_(UNFINISHED),
            job.c.rows_expected.is_(None),
        )
        .order_by(job.c.deadline, job.c.job_id)
        .limit(most)
    )
    return [Uncounted(*row) for row in await connection.execute(query)]


async def count_rows(
    connection: AsyncConnection, sources: Iterable[ClientTable], subject: str
) -> int:
    """Count a person's client rows, by the index that serves their client key."""
    return sum([sum((await types_of(connection, one, subject)).values()) for one in sources])


async def write_expected(connection: AsyncConnection, job_id: UUID, rows: int) -> None:
    """Note the size of a job; nothing else of it is touched."""
    await connection.execute(update(job).where(job.c.job_id == job_id).values(rows_expected=rows))


async def open_jobs(connection: AsyncConnection, buckets: Collection[int]) -> list[OpenJob]:
    """Read the jobs that may run as far as anybody but the clock is concerned, the oldest first.

    Jobs under a hold and paused ones wait for somebody, and no rate says for how long.
    """
    rows = await connection.execute(
        select(job.c.deadline, job.c.batches, job.c.state, job.c.totals, job.c.rows_expected)
        .where(
            one_of(job.c.bucket, buckets),
            job.c.state.in_(RUNNABLE),
            job.c.paused.is_(False),
        )
        .order_by(job.c.created_at, job.c.job_id)
    )
    return [
        OpenJob(row.deadline.astimezone(UTC), row.batches, _left(row.state, row.totals, row[-1]))
        for row in rows
    ]


async def add_measured(connection: AsyncConnection, rows: int, seconds: float) -> None:
    """Add what a process did to the hour that is now, and forget hours long past."""
    row = insert(erasing_pace).values(
        hour=func.date_trunc("hour", func.now()), rows=rows, seconds=seconds
    )
    await connection.execute(
        row.on_conflict_do_update(
            index_elements=[erasing_pace.c.hour],
            set_={
                "rows": erasing_pace.c.rows + row.excluded.rows,
                "seconds": erasing_pace.c.seconds + row.excluded.seconds,
            },
        )
    )
    await connection.execute(delete(erasing_pace).where(erasing_pace.c.hour < func.now() - KEEP))


async def rate(connection: AsyncConnection) -> float | None:
    """Client rows a second of one worker, lately; None if that was not measured."""
    recent = (
        select(erasing_pace.c.rows, erasing_pace.c.seconds)
        .where(erasing_pace.c.rows > 0)
        .order_by(erasing_pace.c.hour.desc())
        .limit(RECENT_HOURS)
        .subquery()
    )
    found = await connection.execute(select(func.sum(recent.c.rows), func.sum(recent.c.seconds)))
    rows, seconds = found.one()
    if rows is None or rows < FEWEST_ROWS or seconds <= 0:
        return None
    return float(rows) / float(seconds)


def _left(state: str, totals: dict[str, dict[str, int]], expected: int | None) -> int | None:
    if state == JobState.ERASED:
        return 0
    if expected is None:
        return None
    read = {name: TypeTotals.model_validate(one) for name, one in totals.items()}
    return max(expected - done_rows(read), 0)
