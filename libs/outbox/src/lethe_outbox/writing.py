"""The statements that write rows of the outbox, each one round trip.

A statement takes its locks in a condition that mentions no row: PostgreSQL decides it before it
looks at the first one, so an id is never drawn before the lock is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final
from uuid import UUID

from lethe_outbox.message import BUCKETS
from lethe_outbox.names import literal, qualified

SEPARATE_KEY_LOCKS: Final = 16
"""Messages of at most this many keys lock each of them; those of more lock whole buckets, because
the server's table of locks has room for some thousands."""

FEW: Final = 16
"""Up to this many rows are written out as VALUES, which is cheapest; more go as one array per
column, so that any number of rows is one prepared statement."""

MOST_ROWS: Final = 20_000
MOST_BYTES: Final = 64 * 1024 * 1024
"""What one statement carries at most; the protocol ends at 1 GiB."""

_KEY_LOCK_BIT: Final = 0x40000000
"""Keeps the locks of keys apart from those of buckets, which are 0 to 255."""

_PLACE: Final = "\0"
"""Stands for a placeholder until the driver is known; no name can hold it."""

_COLUMNS: Final = "event_id, topic, key, bucket, payload, headers"
_TYPES: Final = ("uuid", "text", "text", "int2", "bytea", "bytea")

NewRow = tuple[UUID, str, str, int, bytes, bytes]
"""Event id, topic, key, bucket, payload, packed headers."""

Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Locks:
    """Numbers of advisory locks, each list ascending: everybody takes them in this order."""

    shared: Sequence[int] = ()
    exclusive: Sequence[int] = ()

    @classmethod
    def of(cls, hashes: set[int]) -> "Locks":
        """Choose the locks for messages whose keys have these hashes."""
        if len(hashes) == 1:
            (one,) = hashes
            return cls((one % BUCKETS,), (one | _KEY_LOCK_BIT,))
        buckets = sorted({one % BUCKETS for one in hashes})
        if len(hashes) > SEPARATE_KEY_LOCKS:
            return cls(exclusive=buckets)
        return cls(shared=buckets, exclusive=sorted({one | _KEY_LOCK_BIT for one in hashes}))


class Writer:
    """Composes the statements for the outbox of `schema`.

    Args:
        schema: of the table; None for the connection's search path.
        driver: `psycopg`, `psycopg2` or `asyncpg`, which decides how parameters are written.
    """

    def __init__(self, schema: str | None, driver: str) -> None:
        # psycopg's `%b` is a value in its binary form, which costs least on both sides.
        self._place = {"psycopg": "%b", "psycopg2": "%s"}.get(driver)
        named = self._place is not None
        table = qualified(schema, "outbox")
        oid = f"{literal(table)}::regclass::oid::int4"
        self._insert = _escaped(f"INSERT INTO {table} ({_COLUMNS}) ", percent=named)
        self._oid = _escaped(oid, percent=named)
        self._few = cache(self._few_uncached)
        self._one_locked = self._with_places(
            # Of a CASE it is certain which lock is taken first.
            f"{self._insert}SELECT {_casts()} WHERE "
            f"CASE WHEN pg_advisory_xact_lock_shared({self._oid}, {_PLACE}::int4) IS NOT NULL "
            f"THEN pg_advisory_xact_lock({self._oid}, {_PLACE}::int4) IS NOT NULL END"
        )
        self._one_free = self._with_places(f"{self._insert}VALUES ({_casts()})")
        self._many_locked = self._many(locked=True)
        self._many_free = self._many(locked=False)

    def statements(self, rows: Sequence[NewRow], locks: Locks | None) -> list[Statement]:
        """Write `rows` in their order under `locks`; None to take none.

        Up to `MOST_ROWS` rows of `MOST_BYTES` together are one statement.
        """
        found: list[Statement] = []
        for part in _parts(rows):
            # The locks of the first statement are held to the end of the transaction.
            found.append(self._statement(part, locks, first=not found))
        return found

    def _statement(self, rows: Sequence[NewRow], locks: Locks | None, *, first: bool) -> Statement:
        if locks is None or not first:
            if len(rows) == 1:
                return self._one_free, rows[0]
            return self._rows(rows, (), locked=False)
        if len(rows) == 1 and len(locks.shared) == 1:
            return self._one_locked, (*rows[0], locks.shared[0], locks.exclusive[0])
        return self._rows(rows, (_array(locks.shared), _array(locks.exclusive)), locked=True)

    def _rows(self, rows: Sequence[NewRow], after: tuple[str, ...], *, locked: bool) -> Statement:
        if len(rows) <= FEW:
            return self._few(len(rows), locked), (*chain.from_iterable(rows), *after)
        ids, topics, keys, buckets, payloads, headers = zip(*rows, strict=True)
        arrays = (list(ids), list(topics), list(keys), _array(buckets))
        statement = self._many_locked if locked else self._many_free
        return statement, (*arrays, list(payloads), list(headers), *after)

    def _few_uncached(self, count: int, locked: bool) -> str:  # noqa: FBT001 - a key of the cache
        rows = ", ".join(f"({_casts()})" for _ in range(count))
        # Rows written out are inserted in the order in which they are written.
        return self._select(f"(VALUES {rows}) AS r ({_COLUMNS})", "", locked=locked)

    def _many(self, *, locked: bool) -> str:
        arrays = ", ".join(
            # Numbers travel as text: drivers would choose another type for other values.
            f"{_PLACE}::text::int2[]" if kind == "int2" else f"{_PLACE}::{kind}[]"
            for kind in _TYPES
        )
        source = f"unnest({arrays}) WITH ORDINALITY AS r ({_COLUMNS}, place)"
        return self._select(source, " ORDER BY place", locked=locked)

    def _select(self, source: str, order: str, *, locked: bool) -> str:
        locks = (
            f" WHERE (SELECT count(pg_advisory_xact_lock_shared({self._oid}, n))"  # noqa: S608 - no values
            f" FROM unnest({_PLACE}::text::int4[]) AS b (n))"
            f" + (SELECT count(pg_advisory_xact_lock({self._oid}, n))"
            f" FROM unnest({_PLACE}::text::int4[]) AS k (n)) >= 0"
        )
        condition = locks if locked else ""
        select = f"SELECT {_COLUMNS} FROM {source}{condition}{order}"  # noqa: S608 - no values
        return self._with_places(f"{self._insert}{select}")

    def _with_places(self, template: str) -> str:
        """Write the driver's placeholders."""
        pieces = template.split(_PLACE)
        if self._place is not None:
            return self._place.join(pieces)
        numbered = (f"${n}{piece}" for n, piece in enumerate(pieces[1:], start=1))
        return "".join((pieces[0], *numbered))


def _casts() -> str:
    return ", ".join(f"{_PLACE}::{kind}" for kind in _TYPES)


def _array(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _escaped(fragment: str, *, percent: bool) -> str:
    """Keep a name's own signs out of the driver's placeholders."""
    return fragment.replace("%", "%%") if percent else fragment


def _parts(rows: Sequence[NewRow]) -> list[Sequence[NewRow]]:
    found: list[Sequence[NewRow]] = []
    begin = size = 0
    for end, row in enumerate(rows):
        size += len(row[4])
        if end > begin and (size > MOST_BYTES or end - begin >= MOST_ROWS):
            found.append(rows[begin:end])
            begin, size = end, len(row[4])
    found.append(rows[begin:])
    return found
