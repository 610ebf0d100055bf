"""Rows and objects to seed, each with what is true of it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final

from lethe_sandbox import ground_truth as truth
from lethe_sandbox.product import FEATURES, PDF, TABLES, Table
from lethe_sandbox.seed.cases import Case
from lethe_sandbox.seed.cast import CAME_BACK, Member
from lethe_sandbox.seed.shapes import EMPTY, Ref

FIRST_DAY: Final = datetime(2020, 3, 1, tzinfo=UTC)
"""When the product was opened."""


@dataclass(frozen=True, slots=True)
class SeedRow:
    """A row to insert: its values as PostgreSQL writes them, in the order of its table."""

    values: tuple[str | None, ...]
    truth: truth.Row


@dataclass(frozen=True, slots=True)
class SeedObject:
    """An object to put: the content of each version, oldest first."""

    bodies: tuple[bytes, ...]
    truth: truth.StoredObject


Made = SeedRow | SeedObject


class Maker:
    """Makes rows and objects with ids of their own, and decides what an erasure does with each."""

    def __init__(self, rng: Random, members: Iterable[Member]) -> None:
        self._rng = rng
        self._members = {member.key: member for member in members}
        self._ids = dict.fromkeys((*TABLES, *FEATURES, PDF), 0)
        self._now = FIRST_DAY

    def _fate(self, person: str | None, reason: str | None) -> truth.RowFate:
        if person is None:
            return "nobodys"
        if not self._members[person].requested:
            return "not_requested"
        if self._members[person].role == CAME_BACK:
            return "blocked"
        return "blocked" if reason else "erased"

    def _row(
        self,
        table: Table,
        row: Mapping[str, str | None],
        case: Case,
        fate: truth.RowFate,
        *,
        reason: str | None = None,
        needles: Sequence[str] = (),
        keeps: Sequence[Ref] = (),
    ) -> SeedRow:
        values = tuple(row[name] for name in table.columns)
        erased = fate == "erased"
        empty = {name: row[name] for name in table.masks if erased and _is_empty(table, name, row)}
        return SeedRow(
            values,
            truth.Row(
                table=table.name,
                id=int(values[0] or 0),
                type=case.type,
                owner=case.person,
                fate=fate,
                digests=truth.row_digests(values),
                reason=reason if fate == "blocked" else None,
                empty=empty,
                needles=tuple(needles) if erased else (),
                keeps=tuple(ref.place for ref in keeps) if erased else (),
            ),
        )

    def _stored(
        self,
        ref: Ref,
        request_type: str,
        person: str | None,
        fate: truth.ObjectFate | truth.RowFate,
        *,
        versions: int = 1,
        deleted: bool = False,
    ) -> SeedObject:
        bodies = [f"{self._rng.getrandbits(64):016x}".encode() for _ in range(versions)]
        return seed_object(ref, request_type, person, fate, bodies, deleted=deleted)

    def _next(self, name: str) -> int:
        self._ids[name] += 1
        return self._ids[name]

    def _token(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"


def seed_object(
    ref: Ref,
    request_type: str,
    person: str | None,
    fate: truth.ObjectFate | truth.RowFate,
    bodies: Sequence[bytes],
    *,
    deleted: bool,
) -> SeedObject:
    """Say what is true of an object with these contents, oldest version first.

    Raises:
        ValueError: the reference has no bucket, or the fate is one of rows only.
    """
    bucket, key = ref.place
    if fate == "names_blocked":
        raise ValueError("only client rows name blocked rows, and those name no object")
    etags = tuple(hashlib.md5(body, usedforsecurity=False).hexdigest() for body in bodies)
    stored = truth.StoredObject(bucket, key, request_type, person, fate, etags, deleted)
    return SeedObject(tuple(bodies), stored)


def _is_empty(table: Table, column: str, row: Mapping[str, str | None]) -> bool:
    kind = table.columns[column]
    if column in ("option", "result"):
        return row[column] in EMPTY["text" if kind == "text" else "json"]
    return row[column] in (None, "")


def timestamp(moment: datetime) -> str:
    """Write a moment as PostgreSQL does in UTC: no more digits of a second than needed."""
    text = moment.isoformat(sep=" ").removesuffix(":00")
    head, _, zone = text.rpartition("+")
    if "." in head:
        head = head.rstrip("0")
    return f"{head}+{zone}"
