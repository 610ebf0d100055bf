"""What a batch leaves as it was, and why."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import MAX_ROUNDS, BlockedRow, Job, ObjectRef, RowTarget
from lethe_eraser.execute.tally import Tally, rewritten_refs
from lethe_eraser.objects import MFA_DELETE, OBJECT_LOCKED, REWRITTEN, Deletion
from lethe_eraser.storage import progress
from lethe_eraser.storage.client_rows import ClientRow
from lethe_eraser.storage.journal import Intent
from lethe_eraser.storage.progress import Blocked

_UNKNOWN: Final = BlockReason.OBJECT_NOT_DELETED
_REASONS: Final[Mapping[str, BlockReason]] = {
    OBJECT_LOCKED: BlockReason.OBJECT_LOCKED,
    MFA_DELETE: BlockReason.MFA_DELETE,
    REWRITTEN: BlockReason.STILL_WRITING,
}


def unknown(source: ClientTable, request_type: str, row: ClientRow) -> Blocked:
    """A client row of a type that nobody knows."""
    return Blocked(
        kind="client",
        table=str(source.table),
        row_key=progress.row_key(row.primary_key),
        request_type=request_type,
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


def left_behind(job: Job, intent: Intent, tally: Tally, deletion: Deletion) -> list[Blocked]:
    """Everything of the batch that stays as it was, and why."""
    left = list(intent.blocked)
    is_last = job.round >= MAX_ROUNDS
    done = deletion.done if is_last else deletion.done | rewritten_refs(deletion)
    for part in intent.found:
        request_type = part.request_type
        kept = tally.confirmed[request_type]
        if len(kept) < len(part.rows):
            known = {*kept, *tally.rewritten.get(request_type, ())}
            refused = (row for row in part.rows if row not in known)
            left += [_refused(row, request_type, deletion) for row in refused]
        if is_last:
            left += [
                blocked_row(row, request_type, BlockReason.STILL_WRITING)
                for row in tally.for_later(request_type)
            ]
        left += [
            progress.blocked_object(
                job.job_id,
                request_type,
                ref,
                _reason(ref, deletion),
                deletion.locked_until.get(ref),
            )
            for ref in part.objects
            if ref not in done
        ]
    return left


def without_doubted(intent: Intent, doubted: Collection[ObjectRef]) -> Intent:
    """Leave the rows that name one of `doubted`, with all their objects."""
    found, blocked = [], list(intent.blocked)
    for part in intent.found:
        rows = []
        for row in part.rows:
            if {*row.delete, *row.delete_last}.isdisjoint(doubted):
                rows.append(row)
            else:
                reason = BlockReason.TOO_MANY_MISSING
                blocked.append(blocked_row(row, part.request_type, reason))
        found.append(replace(part, rows=tuple(rows)))
    return replace(intent, found=tuple(found), blocked=tuple(blocked))


def _refused(row: RowTarget, request_type: str, deletion: Deletion) -> Blocked:
    """A row that names an object which S3 would not let go; a lock counts before the rest."""
    refused = [ref for ref in (*row.delete, *row.delete_last) if ref in deletion.failed]
    locked = [ref for ref in refused if ref in deletion.locked_until]
    # A manifest that was not even tried stands behind a file that was refused.
    reason = _reason((locked or refused)[0], deletion) if refused else _UNKNOWN
    ends = [deletion.locked_until[ref] for ref in locked]
    known = [end for end in ends if end is not None]
    until = max(known) if known and len(known) == len(ends) else None
    return replace(blocked_row(row, request_type, reason), until=until)


def _reason(ref: ObjectRef, deletion: Deletion) -> BlockReason:
    return _REASONS.get(deletion.failed.get(ref, ""), _UNKNOWN)
