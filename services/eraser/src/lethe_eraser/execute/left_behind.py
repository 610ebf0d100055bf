"""What a batch leaves as it was, and why."""

from collections.abc import Sequence

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import MAX_ROUNDS, BlockedRow, Job, Masked, ObjectRef, RowTarget
from lethe_eraser.storage import progress
from lethe_eraser.storage.journal import Intent
from lethe_eraser.storage.product import ClientRow
from lethe_eraser.storage.progress import Blocked, Page


def unknown(source: ClientTable, page: Page, row: ClientRow) -> Blocked:
    """A client row of a type that nobody knows."""
    return Blocked(
        kind="client",
        table=str(source.table),
        row_key=progress.row_key(row.primary_key),
        request_type=page.request_type,
        request_id=row.request_id,
        reason=BlockReason.UNKNOWN_TYPE,
    )


def blocked_row(row: BlockedRow | RowTarget, request_type: str, reason: BlockReason) -> Blocked:
    """A row of a request that is left, and why."""
    return Blocked(
        kind=row.kind,
        table=row.table,
        row_key=str(row.row_id),
        request_type=request_type,
        request_id=row.request_id,
        reason=reason,
    )


def left_behind(
    job: Job,
    intent: Intent,
    confirmed: Sequence[RowTarget],
    masked: Masked,
    gone: frozenset[ObjectRef],
) -> list[Blocked]:
    """Everything of the batch that stays as it was, and why."""
    request_type = intent.page.request_type
    kept = set(confirmed)
    left = list(intent.blocked)
    left += [
        blocked_row(row, request_type, BlockReason.OBJECT_NOT_DELETED)
        for row in intent.rows
        if row not in kept
    ]
    if job.round >= MAX_ROUNDS:
        left += [
            blocked_row(row, request_type, BlockReason.STILL_WRITING) for row in masked.changed
        ]
    left += [
        progress.blocked_object(job.job_id, request_type, ref)
        for ref in intent.objects
        if ref not in gone
    ]
    return left
