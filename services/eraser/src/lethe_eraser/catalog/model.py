"""What the catalog says, resolved: names that are used exist, JSON paths are compiled."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Final
from unicodedata import normalize
from urllib.parse import quote

from pydantic import JsonValue

from lethe_eraser.catalog.paths import JsonPath
from lethe_eraser.domain import ObjectRef, RowKind

CLIENT_KEY: Final = "{client_key}"


class CatalogError(Exception):
    """The catalog cannot be used; `problems` says where and what to write instead."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class TableName:
    """A table with its schema, as it is quoted in SQL."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Mask:
    """What a column holds after erasure, as PostgreSQL reads and writes it; None is NULL."""

    text: str | None
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose object a reference names: the person's, only below a prefix, or of all who name it."""

    under: str | None = None
    if_unreferenced: bool = False
    """Nobody's in particular: it goes with the last reference to it."""

    def prefix(self, client_key: str) -> str:
        """The prefix below which objects are `client_key`'s; empty when every object is."""
        return "" if self.under is None else self.under.replace(CLIENT_KEY, client_key)


@dataclass(frozen=True, slots=True)
class Ignored:
    """URLs of a JSON value that name no object of ours."""

    at: JsonPath


@dataclass(frozen=True, slots=True)
class ReferenceRule:
    """Where a value names objects, and whose they are."""

    ownership: Ownership
    at: JsonPath | None = None
    """None: the column's text itself is the reference, not JSON."""
    list_at: JsonPath | None = None
    """The list that `at` takes the items of, if it does."""
    urls: tuple[str, ...] = ()
    key: str | None = None
    bucket: str | None = None
    in_bucket: str | None = None
    only_version: bool = False
    """A version that the reference names is meant alone; else the object with all of them."""

    @property
    def is_object(self) -> bool:
        """Whether `at` finds objects with members, rather than the references themselves."""
        return bool(self.urls or self.key)

    @property
    def is_root(self) -> bool:
        """Whether `at` is the whole value."""
        return self.at is not None and self.at.is_root


Rules = tuple[ReferenceRule | Ignored, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ProductTable:
    """A feature or task table. `keep` is never written; every column of `references` is masked.

    Equal to itself alone, so that its statements are kept by it.
    """

    kind: RowKind
    table: TableName
    primary_key: str
    request_id: str
    masks: Mapping[str, Mask]
    keep: frozenset[str]
    references: Mapping[str, Rules]
    created_at: str | None = None
    unfinished: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values, by column, that say that the product still works on a row."""

    @property
    def columns(self) -> frozenset[str]:
        """Every column the catalog says anything about."""
        named = {self.primary_key, self.request_id, *self.masks, *self.unfinished}
        return self.keep | named | ({self.created_at} if self.created_at else set())


@dataclass(frozen=True, slots=True)
class Feature:
    """One request type: the handler that erases it, and where it is stored."""

    request_type: str
    handler: str
    tables: tuple[ProductTable, ...]
    options: Mapping[str, JsonValue]
    handler_at: str
    options_at: str
    """Where in the file these stand, for errors."""


@dataclass(frozen=True, slots=True)
class ClientTable:
    """A table that says which client key made which request of which type."""

    name: str
    table: TableName
    primary_key: tuple[str, ...]
    client_key: str
    request_type: str
    request_id: str
    created_at: str | None
    masks: Mapping[str, Mask]

    @property
    def columns(self) -> frozenset[str]:
        """Every column the catalog says anything about."""
        named = {
            self.client_key,
            self.request_type,
            self.request_id,
            *self.primary_key,
            *self.masks,
        }
        return frozenset(named if self.created_at is None else named | {self.created_at})

    def masks_as(self, subject: str) -> bool:
        """Whether masked rows read as if they were `subject`'s: nobody can tell whose they were."""
        mask = self.masks.get(self.client_key)
        return mask is not None and mask.text == subject


@dataclass(frozen=True, slots=True)
class Bucket:
    """An S3 bucket of ours."""

    name: str
    owner: str | None = None
    region: str | None = None
    aliases: tuple[str, ...] = ()
    count_missing: bool = False
    """Whether it is asked what is there before anything is deleted."""
    tag: tuple[str, str] | None = None
    """Objects get this tag, for a lifecycle rule to remove, instead of being deleted."""
    replicas: tuple[str, ...] = ()
    """Buckets that hold copies of its objects under the same keys."""


def originals(buckets: Mapping[str, Bucket]) -> Mapping[str, str | None]:
    """Give, by the name of a replica, the bucket it is of; None if it is of several."""
    of = [(name, bucket.name) for bucket in buckets.values() for name in bucket.replicas]
    count = Counter(name for name, _ in of)
    return {name: original if count[name] == 1 else None for name, original in of}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a CDN sends paths that match `pattern` (None: all others)."""

    bucket: str
    origin_path: str = ""
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class SharedObjects:
    """Objects that are never deleted, whoever refers to them; names are composed (NFC)."""

    keys: frozenset[tuple[str, str]] = frozenset()
    prefixes: tuple[tuple[str, str], ...] = ()
    globs: tuple[tuple[str, str], ...] = ()
    tags: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    """By bucket, the tags each of which makes an object shared."""

    def holds(self, ref: ObjectRef) -> bool:
        """Whether `ref` is shared by its name; `tags` may make it so, too."""
        # The same name in another Unicode form is shared, too.
        key = ref.key if ref.key.isascii() else normalize("NFC", ref.key)
        return (
            (ref.bucket, key) in self.keys
            or any(ref.bucket == b and key.startswith(p) for b, p in self.prefixes)
            or any(ref.bucket == b and fnmatchcase(key, p) for b, p in self.globs)
        )


@dataclass(frozen=True, slots=True)
class LookUp:
    """Where else an object may be named: an indexed expression over one table."""

    name: str
    table: TableName
    expression: str
    many: bool
    forms: tuple[str, ...]
    buckets: frozenset[str]
    """Whose objects are named there; empty for all."""
    at: str
    """Where in the file it stands, for errors."""
    replicas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By bucket, those that may be named instead of it."""

    def forms_of(self, ref: ObjectRef) -> tuple[str, ...]:
        """How `ref` is written there; nothing if objects of its bucket are not."""
        if self.buckets and ref.bucket not in self.buckets:
            return ()
        encoded = quote(ref.key, safe="/", errors="surrogatepass")
        parts = {"{key}": ref.key, "{encoded_key}": encoded}
        # In one pass: a key may itself hold what looks like a placeholder.
        written = (
            re.sub(r"\{(?:bucket|key|encoded_key)\}", lambda m: parts.get(m[0], name), form)  # noqa: B023  # called at once
            for form in self.forms
            for name in (ref.bucket, *self.replicas.get(ref.bucket, ()))
        )
        return tuple(dict.fromkeys(written))


@dataclass(frozen=True, slots=True)
class ActiveAccount:
    """Where the product says whose account is active, and since when."""

    table: TableName
    subject: str
    active: Mapping[str, tuple[str, ...]]
    """Values, by column, one of which says that an account is active."""
    opened_at: str
    at: str
    """Where in the file it stands, for errors."""

    @property
    def columns(self) -> frozenset[str]:
        """Every column the catalog says anything about."""
        return frozenset({self.subject, self.opened_at, *self.active})


@dataclass(frozen=True, slots=True)
class Settle:
    """When a person's rows count as finished."""

    after: timedelta = timedelta(0)
    at_most: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All of it, resolved: names that are used exist, JSON paths are compiled."""

    client_tables: tuple[ClientTable, ...]
    features: Mapping[str, Feature]
    buckets: Mapping[str, Bucket]
    hosts: Mapping[str, tuple[Origin, ...]]
    shared: SharedObjects
    reference_sets: Mapping[str, Rules]
    """By name, for handlers whose options name one."""
    distributions: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    """By id: the CDN distributions to be told what is gone, and where their paths lead."""
    ignored_tables: Mapping[TableName, str] = field(default_factory=dict)
    """Tables with a client key that are nothing to erase, and why."""
    look_ups: tuple[LookUp, ...] = ()
    settle: Settle = Settle()
    active_account: ActiveAccount | None = None
