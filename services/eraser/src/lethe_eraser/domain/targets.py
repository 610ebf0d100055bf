"""What a batch is made of, and what became of it.

The seam between finding (`handlers/`) and executing (`execute/`): a handler names the rows and
objects of a page of requests (`Targets`) and masks the rows whose objects are confirmed gone
(`Masked`).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from lethe_contracts.states import BlockReason

RowKind = Literal["feature", "task"]


class ObjectRef(NamedTuple):
    """One object in S3; without a version, the key with every version it has."""

    # A tuple, because batches put these into sets and dictionaries by the hundred thousand.

    bucket: str
    key: str
    version: str | None = None


class AsRead(NamedTuple):
    """An object that others are found through, as it was when it was read."""

    ref: ObjectRef
    held: tuple[str, ...]
    """What was in it, by S3's names for that: its versions, or where it has none its ETag.

    Nothing else of it may go, because nobody knows what could be found through that. Empty: there
    was no such object.
    """


@dataclass(frozen=True, slots=True)
class Source:
    """An object that others are found through, and these."""

    as_read: AsRead
    delete: tuple[ObjectRef, ...]
    unless_referenced: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True, slots=True)
class RowTarget:
    """A row to mask, once every object it names is gone."""

    kind: RowKind
    table: str
    row_id: int
    row_version: str
    """`xmin::text` when the row was read: a row that differs later is left for the next round."""
    request_id: int
    delete: tuple[ObjectRef, ...]
    delete_last: tuple[ObjectRef, ...]
    """Deleted only after everything in `delete` is gone: the other references were found in it."""
    kept: int
    """Objects the row names that stay: shared, or not this person's."""
    unless_referenced: tuple[ObjectRef, ...] = ()
    """Deleted after the row is masked, if no other row names them then."""
    as_read: tuple[AsRead, ...] = ()
    """Those of `delete_last` that only go as they were read; the others go whatever is in them."""

    @property
    def objects(self) -> int:
        """How many objects the row leads to that are to go."""
        return len(self.delete) + len(self.delete_last) + len(self.unless_referenced)


@dataclass(frozen=True, slots=True)
class BlockedRow:
    """A row that is left untouched, with its objects and its client row, and why."""

    kind: RowKind
    table: str
    row_id: int
    request_id: int
    reason: BlockReason
    missing: ObjectRef | None = None
    """The object whose absence blocks the row: the other references would be found in it."""
    row_version: str = ""
    """As in `RowTarget`; set together with `missing`.

    If this very job deleted `missing` (last, after everything found in it), then the row only
    changed between the delete and its mask: nothing is lost, and the row is masked after all.
    """


@dataclass(frozen=True, slots=True)
class Targets:
    """What a page of requests consists of."""

    rows: tuple[RowTarget, ...]
    blocked: tuple[BlockedRow, ...]
    later: tuple[int, ...] = ()
    """The last of the requests, which were not looked at: enough was found in those before."""


@dataclass(frozen=True, slots=True)
class Masked:
    """What masking did: rows masked by kind, and rows that had changed (for the next round)."""

    feature_rows: int
    task_rows: int
    changed: tuple[RowTarget, ...]
