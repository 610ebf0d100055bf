"""What is true of the seeded sample: whose every row and object is, and what an erasure must leave.

One JSON document with one record per line: it is written and read line by line, whatever its size.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

FORMAT: Final = 1
"""Version of the file's format."""

_DIGEST_BYTES: Final = 6
_DIGEST_CHARS: Final = 2 * _DIGEST_BYTES

End = Literal["verified", "blocked"]
RowFate = Literal["erased", "not_requested", "nobodys", "blocked", "names_blocked"]
ObjectFate = Literal["erased", "not_requested", "nobodys", "blocked", "shared"]


class GroundTruthError(Exception):
    """The ground-truth file cannot be read; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class Person:
    """One person of the sample."""

    key: str
    """The client key: what an erasure request calls the subject."""
    role: str
    """What this person is in the sample for."""
    requested: bool
    """Whether the demo asks for this person's erasure; nobody else may be touched."""
    end: End | None
    """How the erasure must end; None for a person who is not requested."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """For a blocked end: how many rows stay for which reason."""
    requests: int = 0
    """How many different requests the person's client rows name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a product table."""

    table: str
    id: int
    type: str
    """The request type the row belongs to."""
    owner: str | None
    """The person's client key; None for a row that no client row leads to."""
    fate: RowFate
    """`erased`: it is masked and kept. Anything else: it stays as it is, and why. A client row
    that is itself fine stays (`names_blocked`) if the request it names has a blocked row. Of who is
    a customer again every row is `blocked`, and the reason stands at the account's."""
    digests: str
    """The digests of its columns as seeded, in the order of the table (`row_digests`)."""
    reason: str | None = None
    """Why it is blocked."""
    empty: Mapping[str, str | None] = field(default_factory=dict)
    """Masked columns that held nothing to begin with, and what they held."""
    needles: tuple[str, ...] = ()
    """Pieces of what the person wrote, to be found nowhere once the row is masked."""
    keeps: tuple[tuple[str, str], ...] = ()
    """(bucket, key) of what it names and its owner does not own: shared, or another person's."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One key of a bucket, with every version it has."""

    bucket: str
    key: str
    type: str
    """The request type it was made for; `shared` for templates and samples."""
    owner: str | None
    """The person's client key; None for what is shared or nobody's."""
    fate: ObjectFate
    """`erased`: no version is left. Anything else: it stays as it is, and why."""
    etags: tuple[str, ...]
    """MD5 of the content of each version, oldest first; exactly one in an unversioned bucket."""
    deleted: bool = False
    """Whether a delete marker stands on top, with its versions still behind it."""


@dataclass(frozen=True)
class GroundTruth:
    """Everything that is true of one seeding."""

    seed: int
    scale: float
    persons: Mapping[str, Person]
    """By client key."""
    rows: Mapping[str, Mapping[int, Row]]
    """By table, then id."""
    objects: Mapping[str, Mapping[str, StoredObject]]
    """By bucket, then key."""

    @property
    def requested(self) -> tuple[Person, ...]:
        """The persons whose erasure the demo asks for."""
        return tuple(person for person in self.persons.values() if person.requested)

    def all_rows(self) -> Iterator[Row]:
        """Every row of every table."""
        for table in self.rows.values():
            yield from table.values()

    def all_objects(self) -> Iterator[StoredObject]:
        """Every object of every bucket."""
        for bucket in self.objects.values():
            yield from bucket.values()

    def write(self, path: Path) -> None:
        """Write the file, or nothing: a reader never sees half of it."""
        unfinished = path.with_name(f".{path.name}.unfinished")
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            head = {"format": FORMAT, "seed": self.seed, "scale": self.scale}
            file.write(json.dumps(head)[:-1])
            for name, records in (
                ("persons", iter(self.persons.values())),
                ("rows", self.all_rows()),
                ("objects", self.all_objects()),
            ):
                file.write(f',\n"{name}": [')
                _write_records(file.write, records)
                file.write("\n]")
            file.write("}\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> "GroundTruth":
        """Read what `write` wrote.

        Raises:
            GroundTruthError: there is no such file, or it is not one of this format.
        """
        try:
            with path.open(encoding="utf-8") as file:
                return _read(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GroundTruthError(f"{path}: {error}; seed the sample again") from error


def row_digests(values: Sequence[str | None]) -> str:
    """Digest each value of a row, written as PostgreSQL does, into one string of fixed parts."""
    return "".join(map(_digest, values))


def differing(expected: str, values: Sequence[str | None]) -> list[int]:
    """Tell which positions of a row are not what `row_digests` saw."""
    found = row_digests(values)
    if found == expected:
        return []
    return [
        position
        for position in range(len(values))
        if found[(start := position * _DIGEST_CHARS) : start + _DIGEST_CHARS]
        != expected[start : start + _DIGEST_CHARS]
    ]


def _digest(value: str | None) -> str:
    if value is None:
        return "-" * _DIGEST_CHARS
    return hashlib.blake2b(value.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _write_records(write: Any, records: Iterable[Person | Row | StoredObject]) -> None:
    separator = "\n"
    for record in records:
        write(separator + json.dumps(_plain(record), ensure_ascii=False))
        separator = ",\n"


def _plain(record: Person | Row | StoredObject) -> dict[str, Any]:
    """Name the fields of a record that differ from their default."""
    plain = {}
    for each in fields(record):
        value = getattr(record, each.name)
        if value != _default(each):
            plain[each.name] = value
    return plain


def _default(each: Any) -> Any:
    if callable(each.default_factory):
        return each.default_factory()
    return each.default


R = TypeVar("R", Person, Row, StoredObject)


def _read(lines: Iterator[str]) -> GroundTruth:
    head = json.loads(next(lines, "").rstrip().removesuffix(",") + "}")
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']} instead of {FORMAT}")
    rows: dict[str, dict[int, Row]] = {}
    objects: dict[str, dict[str, StoredObject]] = {}
    persons = {person.key: person for person in _section(lines, "persons", Person)}
    for row in _section(lines, "rows", Row):
        rows.setdefault(row.table, {})[row.id] = row
    for stored in _section(lines, "objects", StoredObject):
        objects.setdefault(stored.bucket, {})[stored.key] = stored
    return GroundTruth(head["seed"], head["scale"], persons, rows, objects)


def _section(lines: Iterator[str], name: str, record: type[R]) -> Iterator[R]:
    if next(lines, "").rstrip() != f'"{name}": [':
        raise ValueError(f"the section {name!r} is missing")
    for line in lines:
        if line.startswith("]"):
            return
        yield record(**_tuples(json.loads(line.rstrip().removesuffix(","))))
    raise ValueError(f"the section {name!r} does not end")


def _tuples(plain: dict[str, Any]) -> dict[str, Any]:
    for name, value in plain.items():
        if isinstance(value, list):
            plain[name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    return plain
