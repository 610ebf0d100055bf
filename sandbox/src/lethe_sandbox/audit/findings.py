"""What an audit can find wrong: one type per wrong, each with a sentence of what and where."""

from dataclasses import dataclass
from typing import Final, Literal

_BECAUSE: Final = {
    "not_requested": "whose erasure nobody asked for",
    "nobodys": "that nobody's client row leads to",
    "blocked": "that is blocked and has to stay",
    "names_blocked": "that names a blocked row and has to stay",
    "shared": "that everybody shares",
    "erased": "of an erased person",
}


class Finding:
    """Something that is not as the ground truth has it; its text is a sentence about it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class NothingChecked(Finding):
    """The audit had nothing to look at, so it cannot say that anything is right."""

    what: str

    def __str__(self) -> str:
        return f"There were no {self.what} to check, so nothing is proved."


@dataclass(frozen=True, slots=True)
class PlaceGone(Finding):
    """A table or bucket of the product is not there, or no longer of the shape it had."""

    kind: Literal["table", "bucket"]
    name: str

    def __str__(self) -> str:
        return f"The {self.kind} {self.name} is gone or has another shape."


@dataclass(frozen=True, slots=True)
class ValueLeft(Finding):
    """A masked column of an erased person's row holds something else than its mask."""

    table: str
    row: int
    columns: tuple[str, ...]
    person: str

    def __str__(self) -> str:
        columns = ", ".join(self.columns)
        return f"Row {self.row} of {self.table} still holds {columns} of {self.person!r}."


@dataclass(frozen=True, slots=True)
class ClientRowLeft(Finding):
    """A client row of an erased person still bears a client key."""

    table: str
    row: int
    person: str

    def __str__(self) -> str:
        return f"Client row {self.row} of {self.table} still names {self.person!r}."


@dataclass(frozen=True, slots=True)
class TimelineChanged(Finding):
    """A column that survives erasure (when created, which GPU, status, ids) was changed by it."""

    table: str
    row: int
    columns: tuple[str, ...]

    def __str__(self) -> str:
        columns = ", ".join(self.columns)
        return f"Row {self.row} of {self.table} was erased, but its {columns} changed as well."


@dataclass(frozen=True, slots=True)
class RowChanged(Finding):
    """A row that had to stay as it was did not."""

    table: str
    row: int
    columns: tuple[str, ...]
    because: str

    def __str__(self) -> str:
        columns = ", ".join(self.columns)
        return f"Row {self.row} of {self.table} ({_BECAUSE[self.because]}) changed: {columns}."


@dataclass(frozen=True, slots=True)
class RowGone(Finding):
    """A row was deleted; erasing masks rows and deletes none."""

    table: str
    row: int
    because: str

    def __str__(self) -> str:
        return f"Row {self.row} of {self.table} ({_BECAUSE[self.because]}) was deleted."


@dataclass(frozen=True, slots=True)
class StrangeRow(Finding):
    """A row that was never seeded."""

    table: str
    row: int

    def __str__(self) -> str:
        return f"Row {self.row} of {self.table} was not there before."


@dataclass(frozen=True, slots=True)
class ObjectLeft(Finding):
    """An object of an erased person is still stored, in one version at least."""

    bucket: str
    key: str
    versions: int
    person: str

    def __str__(self) -> str:
        versions = f"{self.versions} version{'s'[: self.versions != 1]}"
        return f"{self.bucket}/{self.key} of {self.person!r} is still stored in {versions}."


@dataclass(frozen=True, slots=True)
class MarkerLeft(Finding):
    """Of an erased person's object a delete marker is left, and with it the key."""

    bucket: str
    key: str
    person: str

    def __str__(self) -> str:
        return f"Of {self.bucket}/{self.key} of {self.person!r} a delete marker is left."


@dataclass(frozen=True, slots=True)
class ObjectGone(Finding):
    """An object that had to stay is gone."""

    bucket: str
    key: str
    because: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key} ({_BECAUSE[self.because]}) is gone."


@dataclass(frozen=True, slots=True)
class ObjectChanged(Finding):
    """An object that had to stay has other versions or contents than before."""

    bucket: str
    key: str
    because: str

    def __str__(self) -> str:
        because = _BECAUSE[self.because]
        return f"{self.bucket}/{self.key} ({because}) has other versions or contents than before."


@dataclass(frozen=True, slots=True)
class StrangeObject(Finding):
    """A key, or a delete marker on one, that was never seeded."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key} was not there before."


@dataclass(frozen=True, slots=True)
class TraceLeft(Finding):
    """Something of an erased person stands in a place where nothing of anybody should."""

    place: str
    """`schema.table.column`"""
    what: Literal["client key", "text", "object key"]
    person: str

    def __str__(self) -> str:
        return f"{self.place} holds the {self.what} of {self.person!r}."
