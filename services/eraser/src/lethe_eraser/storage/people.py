"""All that is known of people: read under lock before intake's events apply, and written after.

One writer per person at a time: an advisory lock per person covers also those without a job yet.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.domain import Job, Person, Request
from lethe_eraser.storage import jobs
from lethe_eraser.storage.arrays import one_of
from lethe_eraser.storage.tables import hold, job, job_request, tombstone

_LOCK_CLASS: Final = 0x4C455448
_CANCELLED, _RELEASED = "cancelled", "released"


async def load(connection: AsyncConnection, subject_refs: Iterable[str]) -> dict[str, Person]:
    """Read and lock what is known of these people; somebody unknown is a person without jobs."""
    wanted = sorted(set(subject_refs))
    await lock(connection, wanted)
    known = await jobs.of_people(connection, wanted)
    holds = await _holds(connection, wanted)
    buried = await _tombstones(connection, wanted)
    return {
        ref: Person(
            subject_ref=ref,
            jobs=tuple(known.get(ref, ())),
            holds=frozenset(holds[ref]),
            cancelled=frozenset(buried[ref, _CANCELLED]),
            released=frozenset(buried[ref, _RELEASED]),
        )
        for ref in wanted
    }


async def others_requests(
    connection: AsyncConnection, requests: Mapping[UUID, str]
) -> frozenset[UUID]:
    """Give those request ids (by the person they are said to be of) that are another person's."""
    rows = await connection.execute(
        select(job_request.c.request_id, job.c.subject_ref)
        .join(job, job.c.job_id == job_request.c.job_id)
        .where(one_of(job_request.c.request_id, sorted(requests)))
    )
    return frozenset(request_id for request_id, ref in rows if requests[request_id] != ref)


async def save(connection: AsyncConnection, before: Person, after: Person, bucket: int) -> None:
    """Write what differs between `before`, as it was loaded, and `after`."""
    known = {one.job_id: one for one in before.jobs}
    await jobs.insert_jobs(
        connection, {one.job_id: one for one in after.jobs if one.job_id not in known}, bucket
    )
    for now in after.jobs:
        was = known.get(now.job_id)
        if now == was:
            continue
        if was is not None:
            await jobs.write_told(connection, now)
        await jobs.write_requests(connection, now.job_id, _changed(was, now))
    await _save_holds(connection, before, after)
    for kind, ids in (
        (_CANCELLED, after.cancelled - before.cancelled),
        (_RELEASED, after.released - before.released),
    ):
        await _bury(connection, after.subject_ref, kind, ids)


async def lock(connection: AsyncConnection, subject_refs: Sequence[str]) -> None:
    """Be the only writer of these people's jobs to the end of the transaction."""
    refs = func.unnest(literal(list(subject_refs), ARRAY(Text))).column_valued("ref")
    hashes = select(func.hashtext(refs).label("hash")).distinct().order_by("hash").subquery()
    # The lock is taken row by row, in the order of the sub-select, so two consumers never cross.
    await connection.execute(
        select(func.pg_advisory_xact_lock(literal(_LOCK_CLASS, Integer), hashes.c.hash))
    )


async def _holds(connection: AsyncConnection, refs: Sequence[str]) -> defaultdict[str, set[UUID]]:
    found: defaultdict[str, set[UUID]] = defaultdict(set)
    rows = await connection.execute(
        select(hold.c.subject_ref, hold.c.hold_id).where(one_of(hold.c.subject_ref, refs))
    )
    for ref, hold_id in rows:
        found[ref].add(hold_id)
    return found


async def _tombstones(
    connection: AsyncConnection, refs: Sequence[str]
) -> defaultdict[tuple[str, str], set[UUID]]:
    found: defaultdict[tuple[str, str], set[UUID]] = defaultdict(set)
    rows = await connection.execute(
        select(tombstone.c.subject_ref, tombstone.c.kind, tombstone.c.id).where(
            one_of(tombstone.c.subject_ref, refs)
        )
    )
    for ref, kind, id_ in rows:
        found[ref, kind].add(id_)
    return found


def _changed(was: Job | None, now: Job) -> list[Request]:
    known = {} if was is None else was.requests
    return [request for id_, request in now.requests.items() if known.get(id_) != request]


async def _save_holds(connection: AsyncConnection, before: Person, after: Person) -> None:
    placed, ended = after.holds - before.holds, before.holds - after.holds
    if placed:
        await connection.execute(
            insert(hold).on_conflict_do_nothing(),
            [{"hold_id": id_, "subject_ref": after.subject_ref} for id_ in sorted(placed)],
        )
    if ended:
        await connection.execute(
            delete(hold).where(
                hold.c.subject_ref == after.subject_ref, one_of(hold.c.hold_id, ended)
            )
        )


async def _bury(
    connection: AsyncConnection, subject_ref: str, kind: str, ids: Iterable[UUID]
) -> None:
    rows = [{"kind": kind, "id": id_, "subject_ref": subject_ref} for id_ in sorted(ids)]
    if rows:
        await connection.execute(insert(tombstone).on_conflict_do_nothing(), rows)
