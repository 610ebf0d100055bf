"""How far a job came: pages done, objects counted, rows blocked.

All of it is written in the transaction that masks a batch: the same batch twice is the batch once.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ColumnElement, case, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.domain import ObjectRef, RowKind
from lethe_eraser.storage.product import PrimaryKey
from lethe_eraser.storage.tables import blocked_row, counted_object, progress

OBJECTS_ONLY: Final = ""
"""The source of a journal row that names objects and no page of client rows."""

_LAST: Final = b"last"
"""Sets digests of objects that were deleted last apart from those that are counted."""

BlockedKind = RowKind | Literal["client", "object"]


@dataclass(frozen=True, slots=True)
class Page:
    """Where a batch begins: a request type in one client table, after a cursor."""

    request_type: str
    source: str
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something left behind: a product row, a client row, or an object."""

    kind: BlockedKind
    table: str
    row_key: str
    request_type: str
    request_id: int | None
    reason: BlockReason


@dataclass(frozen=True, slots=True)
class Step:
    """How far one (type, source) came in a round."""

    page: Page
    done: bool
    deferred: int


async def steps(
    connection: AsyncConnection, job_id: UUID, round_: int
) -> dict[tuple[str, str], Step]:
    """Read how far each (type, source) came in this round."""
    rows = await connection.execute(
        select(progress).where(progress.c.job_id == job_id, progress.c.round == round_)
    )
    return {
        (row.request_type, row.source): Step(
            Page(row.request_type, row.source, row.after_key), row.done, row.deferred
        )
        for row in rows
    }


async def advance(
    connection: AsyncConnection, job_id: UUID, round_: int, page: Page, *, done: bool, deferred: int
) -> None:
    """Note that (type, source) came to `page.after` in this round, and rows left for the next."""
    row = insert(progress).values(
        job_id=job_id,
        request_type=page.request_type,
        source=page.source,
        round=round_,
        after_key=page.after,
        done=done,
        deferred=deferred,
    )
    of_this_round = progress.c.round == row.excluded.round
    await connection.execute(
        row.on_conflict_do_update(
            index_elements=[progress.c.job_id, progress.c.request_type, progress.c.source],
            set_={
                "round": row.excluded.round,
                "after_key": row.excluded.after_key,
                "done": row.excluded.done,
                "deferred": row.excluded.deferred
                + case((of_this_round, progress.c.deferred), else_=0),
            },
        )
    )


async def count_new(
    connection: AsyncConnection, job_id: UUID, refs: Iterable[ObjectRef]
) -> list[str]:
    """Remember these objects as counted; gives the buckets of those that were not yet, one each."""
    by_digest = {_digest(job_id, ref): ref.bucket for ref in refs}
    if not by_digest:
        return []
    digests = func.unnest(literal(sorted(by_digest), ARRAY(BigInteger))).column_valued("digest")
    new = (
        insert(counted_object)
        .from_select(["job_id", "digest"], select(literal(job_id), digests))
        .on_conflict_do_nothing()
        .returning(counted_object.c.digest)
    )
    return [by_digest[digest] for digest in (await connection.execute(new)).scalars()]


async def remember_last(
    connection: AsyncConnection, job_id: UUID, refs: Iterable[ObjectRef]
) -> None:
    """Remember objects that were deleted after everything found in them."""
    rows = [{"job_id": job_id, "digest": _digest(job_id, ref, _LAST)} for ref in refs]
    if rows:
        await connection.execute(insert(counted_object).on_conflict_do_nothing(), rows)


async def deleted_last(
    connection: AsyncConnection, job_id: UUID, refs: Iterable[ObjectRef]
) -> frozenset[ObjectRef]:
    """Tell which of these objects this job deleted after everything found in them."""
    by_digest = {_digest(job_id, ref, _LAST): ref for ref in refs}
    if not by_digest:
        return frozenset()
    rows = await connection.execute(
        select(counted_object.c.digest).where(
            counted_object.c.job_id == job_id, counted_object.c.digest.in_(by_digest)
        )
    )
    return frozenset(by_digest[digest] for digest in rows.scalars())


def _digest(job_id: UUID, ref: ObjectRef, personalisation: bytes = b"") -> int:
    name = f"{ref.bucket}\0{ref.key}".encode("utf-8", "surrogatepass")
    sealed = hashlib.blake2b(name, digest_size=8, key=job_id.bytes, person=personalisation).digest()
    return int.from_bytes(sealed, "big", signed=True)


async def record_blocked(
    connection: AsyncConnection,
    job_id: UUID,
    round_: int,
    batch: int | None,
    rows: Iterable[Blocked],
) -> None:
    """Note what this round leaves behind, and why; the newest reason of a row counts."""
    values = [
        {
            "job_id": job_id,
            "round": round_,
            "batch": batch,
            **asdict(row),
            "reason": str(row.reason),
        }
        for row in rows
    ]
    for value in values:
        value["table_name"] = value.pop("table")
    if not values:
        return
    new = insert(blocked_row)
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=[
                blocked_row.c.job_id,
                blocked_row.c.table_name,
                blocked_row.c.row_key,
            ],
            set_={
                "reason": new.excluded.reason,
                "round": new.excluded.round,
                "batch": func.coalesce(new.excluded.batch, blocked_row.c.batch),
            },
        ),
        values,
    )


def row_key(primary_key: PrimaryKey) -> str:
    """Write a primary key of any columns as one text."""
    return "/".join(str(part) for part in primary_key)


def blocked_object(job_id: UUID, request_type: str, ref: ObjectRef) -> Blocked:
    """Something left that is no row: named by its digest, the journal has its key."""
    return Blocked(
        kind="object",
        table=ref.bucket,
        row_key=f"{_digest(job_id, ref):x}",
        request_type=request_type,
        request_id=None,
        reason=BlockReason.OBJECT_NOT_DELETED,
    )


async def unblock(connection: AsyncConnection, job_id: UUID, *, before_round: int) -> None:
    """Forget rows that were blocked in an earlier round and not in this one."""
    await connection.execute(
        delete(blocked_row).where(
            blocked_row.c.job_id == job_id, blocked_row.c.round < before_round
        )
    )


async def blocked_by_type(connection: AsyncConnection, job_id: UUID) -> dict[str, int]:
    """Count what is blocked, by request type."""
    return await _counted(connection, job_id, blocked_row.c.request_type)


async def blocked_by_reason(connection: AsyncConnection, job_id: UUID) -> dict[BlockReason, int]:
    """Count what is blocked, by reason."""
    counted = await _counted(connection, job_id, blocked_row.c.reason)
    return {BlockReason(reason): rows for reason, rows in counted.items()}


async def blocked(connection: AsyncConnection, job_id: UUID) -> list[Blocked]:
    """Read what is blocked."""
    rows = await connection.execute(
        select(
            blocked_row.c.kind,
            blocked_row.c.table_name,
            blocked_row.c.row_key,
            blocked_row.c.request_type,
            blocked_row.c.request_id,
            blocked_row.c.reason,
        ).where(blocked_row.c.job_id == job_id)
    )
    return [Blocked(*row[:-1], BlockReason(row[-1])) for row in rows]


async def purge(connection: AsyncConnection, job_id: UUID) -> None:
    """Drop what only a job needs that may go on."""
    for table in (progress, counted_object):
        await connection.execute(delete(table).where(table.c.job_id == job_id))


async def rewind(connection: AsyncConnection, job_id: UUID) -> None:
    """Let the job begin anew: every row is looked at again, no object is counted twice."""
    await connection.execute(delete(progress).where(progress.c.job_id == job_id))
    await connection.execute(
        update(blocked_row).where(blocked_row.c.job_id == job_id).values(round=0)
    )


async def _counted(
    connection: AsyncConnection, job_id: UUID, by: ColumnElement[str]
) -> dict[str, int]:
    rows = await connection.execute(
        select(by, func.count()).where(blocked_row.c.job_id == job_id).group_by(by)
    )
    return {row[0]: row[1] for row in rows}
