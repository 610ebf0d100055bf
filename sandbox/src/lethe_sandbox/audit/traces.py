"""Looks for traces of erased persons in any text: client keys, prompts, object keys."""

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from lethe_sandbox.audit.findings import TraceLeft
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.product import TABLES

_TAIL: Final = 6
_PAGE: Final = 500
_SCHEMAS: Final = """
    select n.nspname, c.relname
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'm') and not c.relispartition
      and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_t'
    order by 1, 2"""
_COLUMNS: Final = """
    select a.attname, a.atttypid = 'bytea'::regtype
    from pg_attribute a
    where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
    order by a.attnum"""

What = Literal["client key", "text", "object key"]


class Traces:
    """All that must stand nowhere any more; looking for many costs no more than for few."""

    def __init__(self, truth: GroundTruth, erased: Collection[str]) -> None:
        self._by_tail: dict[str, list[tuple[str, What, str]]] = {}
        self._clean: set[str] = set()
        for person in erased:
            self._add(person, "client key", person)
        for row in truth.all_rows():
            if row.fate == "erased" and row.owner in erased:
                for needle in row.needles:
                    self._add(needle, "text", row.owner or "")
        for stored in truth.all_objects():
            if stored.fate == "erased" and stored.owner in erased:
                self._add(stored.key, "object key", stored.owner or "")

    def _add(self, needle: str, what: What, person: str) -> None:
        for written in {needle, quote(needle), json.dumps(needle)[1:-1]}:
            entry = (written, what, person)
            self._by_tail.setdefault(written[-_TAIL:], []).append(entry)

    def within(self, text: str) -> set[tuple[What, str]]:
        """Tell what of whom a text holds."""
        if text in self._clean:
            return set()
        found = set()
        for end in range(_TAIL, len(text) + 1):
            for needle, what, person in self._by_tail.get(text[end - _TAIL : end], ()):
                if text.endswith(needle, 0, end):
                    found.add((what, person))
        if not found:
            self._clean.add(text)
        return found

    def findings(self, place: str, text: str) -> Iterator[TraceLeft]:
        """Say what of whom a text at a place holds."""
        for what, person in sorted(self.within(text)):
            yield TraceLeft(place, what, person)


def elsewhere(connection: psycopg.Connection, traces: Traces) -> Iterator[TraceLeft]:
    """Search every column of every table of the database that is not one of the product's own."""
    known = {("public", name) for name in TABLES}
    for schema, table in connection.execute(_SCHEMAS).fetchall():
        if (schema, table) not in known:
            yield from _once(_search(connection, traces, schema, table))


def _search(
    connection: psycopg.Connection, traces: Traces, schema: str, table: str
) -> Iterator[TraceLeft]:
    name = sql.Identifier(schema, table)
    columns = connection.execute(_COLUMNS, (name.as_string(connection),)).fetchall()
    if not columns:
        return
    selected = sql.SQL(", ").join(
        sql.Identifier(column) if binary else sql.SQL("{}::text").format(sql.Identifier(column))
        for column, binary in columns
    )
    for row in streamed(connection, sql.SQL("select {} from {}").format(selected, name)):
        for (column, _), value in zip(columns, row, strict=True):
            if value is not None:
                text = value if isinstance(value, str) else bytes(value).decode(errors="replace")
                yield from traces.findings(f"{schema}.{table}.{column}", text)


def _once(found: Iterable[TraceLeft]) -> Iterator[TraceLeft]:
    yield from dict.fromkeys(found)


def streamed(
    connection: psycopg.Connection, statement: sql.Composed
) -> Iterator[tuple[str | bytes | None, ...]]:
    """Read the rows of a statement in pages."""
    with connection.cursor("audit") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(statement)
        yield from cursor
