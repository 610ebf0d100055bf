"""How far a job came: client rows done, and rows blocked.

All of it is written in the transaction that masks a batch: the same batch twice is the batch once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Text,
    and_,
    case,
    cast,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.domain import Job, JobState, ObjectRef, RowKind
from lethe_eraser.storage.arrays import BigIntegers
from lethe_eraser.storage.client_rows import PrimaryKey
from lethe_eraser.storage.counted import digest_of
from lethe_eraser.storage.tables import (
    blocked_row,
    counted_object,
    invalidation,
    job,
    journal,
    progress,
)

OBJECTS_ONLY: Final = ""
"""The source of a journal row that names objects and no page of client rows."""

BlockedKind = RowKind | Literal["client", "object"]


@dataclass(frozen=True, slots=True)
class Page:
    """Where a batch begins: a request type in one client table, after a cursor."""

    request_type: str
    source: str
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Client rows of one type in one client table: those after `page.after`, up to `end`."""

    page: Page
    end: str | None = None
    """The cursor of the last of them."""
    done: bool = False
    """Whether they are the last of their type and table in the round."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something left behind: a product row, a client row, or an object."""

    kind: BlockedKind
    table: str
    row_key: str
    request_type: str
    request_id: int | None
    reason: BlockReason
    until: datetime | None = None
    """When what blocks it ends by itself, if that is known."""


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
    connection: AsyncConnection,
    job_id: UUID,
    round_: int,
    stretches: Iterable[Stretch],
    deferred: Mapping[str, int],
) -> None:
    """Note how far each (type, source) came in this round, in one statement.

    Args:
        connection: of the transaction that masks the batch.
        job_id: whose progress it is.
        round_: the job's round.
        stretches: what was worked through.
        deferred: by type, the rows left for the next round.
    """
    named = [stretch for stretch in stretches if stretch.page.source != OBJECTS_ONLY]
    if not named:
        return
    left = dict(deferred)
    columns = (
        func.unnest(
            literal([stretch.page.request_type for stretch in named], ARRAY(Text)),
            literal([stretch.page.source for stretch in named], ARRAY(Text)),
            literal([stretch.end for stretch in named], ARRAY(Text)),
            literal([stretch.done for stretch in named], ARRAY(Boolean)),
            # A type may stand in several client tables: what it left is noted once.
            literal([left.pop(stretch.page.request_type, 0) for stretch in named], BigIntegers()),
        )
        .table_valued("request_type", "source", "after_key", "done", "deferred")
        .render_derived()
    )
    row = insert(progress).from_select(
        ["job_id", "round", *columns.c.keys()],
        select(literal(job_id), literal(round_), *columns.c),
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
                "until": new.excluded.until,
                "round": new.excluded.round,
                "batch": func.coalesce(new.excluded.batch, blocked_row.c.batch),
            },
        ),
        values,
    )


async def record_left_by_others(connection: AsyncConnection, of: Job) -> None:
    """Note the objects that ended jobs of the same person left: no row leads to them any more."""
    others = select(job.c.job_id).where(
        job.c.subject_ref == of.subject_ref,
        job.c.job_id != of.job_id,
        job.c.state.in_((JobState.BLOCKED, JobState.FAILED)),
    )
    row = blocked_row.c
    refused = select(row.table_name, row.row_key, row.request_type, row.reason, row.until).where(
        # What is noted here has no batch: two jobs would keep each other blocked by it.
        row.job_id.in_(others),
        row.kind == "object",
        row.batch.is_not(None),
    )
    # What is not masked is named by a row, but for what goes with the last row that named it. Of
    # the rest a failed job has proven nothing.
    failed = others.where(job.c.state == JobState.FAILED)
    unproven = or_(
        and_(journal.c.source == OBJECTS_ONLY, ~journal.c.masked),
        and_(journal.c.job_id.in_(failed), journal.c.masked),
    )
    begun = select(
        literal("journal"),
        cast(journal.c.job_id, Text),
        journal.c.request_type,
        literal(str(BlockReason.OBJECT_NOT_DELETED)),
        null(),
    ).where(journal.c.job_id.in_(others), unproven)
    left = union_all(refused, begun).subquery()
    await connection.execute(
        insert(blocked_row)
        .from_select(
            ["job_id", "round", "kind", *(c.name for c in refused.selected_columns)],
            select(literal(of.job_id), literal(of.round), literal("object"), *left.c),
        )
        .on_conflict_do_nothing()
    )


def row_key(primary_key: PrimaryKey) -> str:
    """Write a primary key of any columns as one text, and no two of a table as the same."""
    if len(primary_key) == 1:
        return str(primary_key[0])
    return "/".join(str(part).replace("\\", "\\\\").replace("/", "\\/") for part in primary_key)


def blocked_object(
    job_id: UUID,
    request_type: str,
    ref: ObjectRef,
    reason: BlockReason = BlockReason.OBJECT_NOT_DELETED,
    until: datetime | None = None,
) -> Blocked:
    """Something left that is no row: named by its digest, the journal has its key."""
    return Blocked(
        kind="object",
        table=ref.bucket,
        row_key=f"{digest_of(job_id, ref):x}",
        request_type=request_type,
        request_id=None,
        reason=reason,
        until=until,
    )


async def unblock(connection: AsyncConnection, job_id: UUID, *, before_round: int) -> None:
    """Forget rows that were blocked in an earlier round and not in this one."""
    await connection.execute(
        delete(blocked_row).where(
            blocked_row.c.job_id == job_id, blocked_row.c.round < before_round
        )
    )


async def try_refused_again(connection: AsyncConnection, job_id: UUID) -> None:
    """Let the next round delete again what S3 refused to, where no row leads to it any more.

    What is refused again is blocked again in that round; what went is forgotten by `unblock`.
    """
    refused = select(blocked_row.c.batch).where(
        blocked_row.c.job_id == job_id,
        blocked_row.c.kind == "object",
        blocked_row.c.batch.is_not(None),
    )
    # Batches of client rows are found again by their rows, and by verification.
    again = (
        journal.c.job_id == job_id,
        journal.c.source == OBJECTS_ONLY,
        journal.c.batch.in_(refused),
    )
    await connection.execute(update(journal).where(*again).values(masked=False))
    # Of what was refused the CDN was not told: it counts as told of what came before.
    first = select(func.min(journal.c.batch)).where(*again).scalar_subquery()
    await connection.execute(
        update(invalidation)
        .where(invalidation.c.job_id == job_id, invalidation.c.batch >= first)
        .values(batch=first - 1)
    )


async def blocked_by_type(connection: AsyncConnection, job_id: UUID) -> dict[str, int]:
    """Count what is blocked, by request type."""
    return await _counted(connection, job_id, blocked_row.c.request_type)


async def locked_until(connection: AsyncConnection, job_id: UUID) -> datetime | None:
    """Give when the last of the locks ends that end by themselves."""
    found = await connection.execute(
        select(func.max(blocked_row.c.until)).where(blocked_row.c.job_id == job_id)
    )
    until: datetime | None = found.scalar_one()
    return until


async def blocked_in_round(
    connection: AsyncConnection, job_id: UUID, round_: int, reason: BlockReason
) -> int:
    """Count what this round left for `reason`."""
    found = await connection.execute(
        select(func.count())
        .select_from(blocked_row)
        .where(
            blocked_row.c.job_id == job_id,
            blocked_row.c.round == round_,
            blocked_row.c.reason == str(reason),
        )
    )
    return found.scalar_one()


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
    await try_refused_again(connection, job_id)
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
