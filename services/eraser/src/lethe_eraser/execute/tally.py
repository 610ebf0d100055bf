"""What a batch did, summed up by request type."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lethe_contracts.events import TypeTotals
from lethe_eraser.domain import Masked, ObjectRef, RowTarget
from lethe_eraser.objects import REWRITTEN, Deletion
from lethe_eraser.storage.journal import Intent


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the rows and objects of one batch."""

    confirmed: Mapping[str, tuple[RowTarget, ...]]
    """By type, the rows whose objects are done with, in the intent's order."""
    rewritten: Mapping[str, tuple[RowTarget, ...]] = field(default_factory=dict)
    """By type, the rows whose objects went but for what the product wrote anew meanwhile."""
    masked: Mapping[str, Masked] = field(default_factory=dict)
    """By type, what masking them did."""

    @property
    def rows(self) -> list[RowTarget]:
        """Every row that is masked now."""
        return [
            row
            for request_type, rows in self.confirmed.items()
            for row in _without(rows, self.changed(request_type))
        ]

    def changed(self, request_type: str) -> tuple[RowTarget, ...]:
        """Give the rows of a type that had changed since they were collected."""
        masked = self.masked.get(request_type)
        return () if masked is None else masked.changed

    def for_later(self, request_type: str) -> tuple[RowTarget, ...]:
        """Give the rows of a type that another round is to look at."""
        return (*self.changed(request_type), *self.rewritten.get(request_type, ()))

    def totals(
        self,
        intent: Intent,
        deletion: Deletion,
        new: Collection[ObjectRef],
        named: Collection[ObjectRef],
    ) -> dict[str, TypeTotals]:
        """Sum up by type.

        Args:
            intent: what the batch set out to do.
            deletion: what became of its objects.
            new: the objects that no batch of the job counted before.
            named: objects that stay because another row still names them.
        """
        owners = dict(intent.owners)
        for part in intent.found:
            for ref in part.missing:
                owners.setdefault(ref, part.request_type)
        absent = frozenset(intent.missing)
        there = frozenset(new) - absent
        gone = Counter(owners[ref] for ref in there & deletion.gone)
        missing = Counter(owners[ref] for ref in absent.intersection(new))
        scheduled = Counter(owners[ref] for ref in there & deletion.scheduled)
        kept = self._kept(named)
        return {
            part.request_type: TypeTotals(
                feature_rows=masked.feature_rows,
                task_rows=masked.task_rows,
                objects_gone=gone[part.request_type],
                objects_missing=missing[part.request_type],
                objects_scheduled=scheduled[part.request_type],
                objects_kept=kept[part.request_type],
            )
            for part in intent.found
            for masked in [self.masked.get(part.request_type, Masked(0, 0, ()))]
        }

    def _kept(self, named: Collection[ObjectRef]) -> Counter[str]:
        kept: Counter[str] = Counter()
        left = set(named)
        for request_type, rows in self.confirmed.items():
            for row in _without(rows, self.changed(request_type)):
                stays = left.intersection(row.unless_referenced)
                left -= stays
                kept[request_type] += row.kept + len(stays)
        return kept


def confirmed(intent: Intent, deletion: Deletion) -> dict[str, tuple[RowTarget, ...]]:
    """Give, by type, the rows whose every object is gone or scheduled."""
    done = deletion.done
    return {
        part.request_type: tuple(
            row
            for row in part.rows
            if done.issuperset(row.delete) and done.issuperset(row.delete_last)
        )
        for part in intent.found
    }


def rewritten(intent: Intent, deletion: Deletion) -> dict[str, tuple[RowTarget, ...]]:
    """Give, by type, the rows that lead to what was not read and of which nothing else is left."""
    again = rewritten_refs(deletion)
    if not again:
        return {}
    done = deletion.done | again
    return {
        part.request_type: tuple(
            row
            for row in part.rows
            if not again.isdisjoint(row.delete_last)
            and done.issuperset(row.delete)
            and done.issuperset(row.delete_last)
        )
        for part in intent.found
    }


def rewritten_refs(deletion: Deletion) -> frozenset[ObjectRef]:
    """Give the objects that hold what was not read."""
    return frozenset(ref for ref, code in deletion.failed.items() if code == REWRITTEN)


def _without(rows: Collection[RowTarget], changed: Collection[RowTarget]) -> Collection[RowTarget]:
    if not changed:
        return rows
    left = set(changed)
    return [row for row in rows if row not in left]
