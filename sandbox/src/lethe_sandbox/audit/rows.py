"""Compares every row of the product with what the ground truth says of it."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import errors, sql

from lethe_sandbox.audit.findings import (
    ClientRowLeft,
    Finding,
    PlaceGone,
    RowChanged,
    RowGone,
    StrangeRow,
    TimelineChanged,
    ValueLeft,
)
from lethe_sandbox.audit.traces import Traces, streamed
from lethe_sandbox.ground_truth import GroundTruth, Row, differing
from lethe_sandbox.product import TABLES, Table


@dataclass(slots=True)
class RowsSeen:
    """What was seen to be right, per request type."""

    checked: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    blocked: dict[str, Counter[str]] = field(default_factory=dict)
    """Rows that stayed because they are blocked, per reason."""
    kept: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """(bucket, key) of what masked rows named and their owner does not own."""


def check_rows(
    connection: psycopg.Connection, truth: GroundTruth, erased: Collection[str], traces: Traces
) -> tuple[list[Finding], RowsSeen]:
    """Read every product table once and compare; `erased` are those whose erasure was asked for."""
    seen = RowsSeen()
    found: list[Finding] = []
    for table in TABLES.values():
        check = _TableCheck(table, truth, erased, traces, seen)
        try:
            with connection.transaction():
                found.extend(check.run(connection))
        except (errors.UndefinedTable, errors.UndefinedColumn):
            found.append(PlaceGone("table", table.name))
    return found, seen


class _TableCheck:
    def __init__(
        self,
        table: Table,
        truth: GroundTruth,
        erased: Collection[str],
        traces: Traces,
        seen: RowsSeen,
    ) -> None:
        self._table = table
        self._columns = tuple(table.columns)
        self._missing = dict(truth.rows.get(table.name, {}))
        self._erased = erased
        self._traces = traces
        self._seen = seen

    def run(self, connection: psycopg.Connection) -> Iterator[Finding]:
        selected = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(column)) for column in self._columns
        )
        statement = sql.SQL("select {} from {}").format(
            selected, sql.Identifier("public", self._table.name)
        )
        for read in streamed(connection, statement):
            self._seen.checked += 1
            yield from self._row([None if value is None else str(value) for value in read])
        for row in self._missing.values():
            yield RowGone(row.table, row.id, row.fate)

    def _row(self, values: Sequence[str | None]) -> Iterator[Finding]:
        number = int(values[0] or 0)
        expected = self._missing.pop(number, None)
        if expected is None:
            yield StrangeRow(self._table.name, number)
            yield from self._search(values)
        elif expected.fate == "erased" and expected.owner in self._erased:
            yield from self._masked(expected, values)
            yield from self._search(values)
        else:
            yield from self._unchanged(expected, values)

    def _unchanged(self, row: Row, values: Sequence[str | None]) -> Iterator[Finding]:
        changed = tuple(self._columns[at] for at in differing(row.digests, values))
        if changed:
            # A person not asked for this time may well be one whom the ground truth lets erase.
            because = "not_requested" if row.fate == "erased" else row.fate
            yield RowChanged(row.table, row.id, changed, because)
        elif row.reason is not None and row.owner in self._erased:
            self._seen.blocked.setdefault(row.type, Counter())[row.reason] += 1

    def _masked(self, row: Row, values: Sequence[str | None]) -> Iterator[Finding]:
        kept = self._table.kept
        changed = [self._columns[at] for at in differing(row.digests, values)]
        if broken := tuple(column for column in changed if column in kept):
            yield TimelineChanged(row.table, row.id, broken)
        left = tuple(
            column
            for column, value in zip(self._columns, values, strict=True)
            if column in self._table.masks and not self._is_masked(row, column, value)
        )
        if not left:
            self._seen.masked[row.type] += 1
            self._seen.kept.setdefault(row.type, set()).update(row.keeps)
        elif self._table.kind == "client":
            yield ClientRowLeft(row.table, row.id, row.owner or "")
        else:
            yield ValueLeft(row.table, row.id, left, row.owner or "")

    def _is_masked(self, row: Row, column: str, value: str | None) -> bool:
        """A column that never held anything may stay as it was."""
        if value == self._table.masks[column]:
            return True
        return column in row.empty and value == row.empty[column]

    def _search(self, values: Sequence[str | None]) -> Iterator[Finding]:
        for column, value in zip(self._columns, values, strict=True):
            if value is not None:
                place = f"public.{self._table.name}.{column}"
                yield from self._traces.findings(place, value)
