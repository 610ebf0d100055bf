"""From the YAML file to a `Catalog`, or to the list of everything that is wrong with it."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from unicodedata import normalize

import jsonpath
from jsonpath import JSONPath, JSONPathError
from pydantic import JsonValue

from lethe_eraser.catalog.document import Document, did_you_mean, read
from lethe_eraser.catalog.model import (
    ActiveAccount,
    Bucket,
    Catalog,
    CatalogError,
    ClientTable,
    Feature,
    Ignored,
    LookUp,
    Mask,
    Origin,
    Ownership,
    ProductTable,
    ReferenceRule,
    Rules,
    Settle,
    SharedObjects,
    TableName,
    originals,
)
from lethe_eraser.catalog.paths import JsonPath
from lethe_eraser.catalog_schema import (
    ActiveAccountEntry,
    CatalogFile,
    ClientTableEntry,
    HostEntry,
    LookUpEntry,
    OwnershipEntry,
    ReferenceEntry,
    SharedEntry,
    TableEntry,
    TagEntry,
)
from lethe_eraser.domain import RowKind

Place = tuple[str | int, ...]


def load(path: Path) -> Catalog:
    """Read and resolve the catalog at `path`.

    Raises:
        CatalogError: It cannot be read, or says something that cannot be; all problems at once.
    """
    return _Resolution(read(path)).catalog()


class _Resolution:
    """One pass over a file's entries; gathers every problem."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._file: CatalogFile = document.file
        self._problems: list[str] = []
        self._claimed: dict[TableName, str] = {}
        self._originals: Mapping[str, str | None] = {}

    def catalog(self) -> Catalog:
        clients = tuple(
            self._client(name, entry) for name, entry in self._file.client_tables.items()
        )
        features = {name: self._feature(name) for name in self._file.features}
        aliases = [a for entry in self._file.buckets.values() for a in entry.aliases]
        for alias in sorted(
            {a for a in aliases if aliases.count(a) > 1 or a in self._file.buckets}
        ):
            self._wrong(("buckets",), f"alias {alias} names two buckets")
        written = [name.lower() for name in self._file.hosts]
        for name in self._file.hosts:
            if written.count(name.lower()) > 1:
                self._wrong(("hosts", name), "stands twice: upper and lower case are the same host")
        hosts = {name.lower(): self._host(name, h) for name, h in self._file.hosts.items()}
        buckets = {name: self._bucket_of(name) for name in self._file.buckets}
        self._originals = originals(buckets)
        catalog = Catalog(
            client_tables=clients,
            features=features,
            buckets=buckets,
            hosts=hosts,
            distributions=self._distributions(hosts),
            shared=self._shared(self._file.shared),
            reference_sets={
                name: self._rules(entries, ("reference_sets", name))
                for name, entries in self._file.reference_sets.items()
            },
            ignored_tables={
                self._claim(name, ("ignored_tables", name)): why
                for name, why in self._file.ignored_tables.items()
            },
            look_ups=tuple(self._look_up(*item) for item in self._file.look_ups.items()),
            settle=Settle(
                timedelta(seconds=self._file.settle.after_seconds),
                timedelta(seconds=self._file.settle.at_most_seconds),
            ),
            active_account=self._account(self._file.active_account),
        )
        self._all_looked_up(catalog)
        if self._problems:
            raise CatalogError(self._problems)
        return catalog

    def _wrong(self, place: Place, says: str) -> None:
        self._problems.append(f"{self._document.where(place)}: {says}")

    def _claim(self, written: str, place: Place) -> TableName:
        table = self._named(written)
        if table in self._claimed:
            self._wrong(place, f"table {table} is claimed by {self._claimed[table]} already")
        self._claimed[table] = ".".join(map(str, place[:-1]))
        return table

    def _named(self, written: str) -> TableName:
        schema, _, name = written.rpartition(".")
        return TableName(schema or self._file.schema_name, name)

    def _bucket(self, name: str, place: Place) -> str:
        if name not in self._file.buckets:
            self._wrong(place, f"unknown bucket {name}; {did_you_mean(name, self._file.buckets)}")
        return name

    def _no_copy(self, name: str, place: Place) -> None:
        """An object is known by its original, whichever of its copies a row names."""
        if name in self._originals:
            original = self._originals[name] or "the buckets that they are of"
            self._wrong(place, f"{name} holds copies; name {original} instead")

    def _bucket_of(self, name: str) -> Bucket:
        entry = self._file.buckets[name]
        for i, replica in enumerate(entry.replicas):
            place = ("buckets", name, "replicas", i)
            if self._bucket(replica, place) == name:
                self._wrong(place, "a bucket is no replica of itself")
            elif replica in self._file.buckets and self._file.buckets[replica].replicas:
                self._wrong(place, f"{replica} has replicas itself; name them all here instead")
        tag = entry.tag or TagEntry()
        return Bucket(
            name,
            entry.owner or self._file.owner,
            entry.region,
            entry.aliases,
            count_missing=entry.count_missing,
            tag=(tag.key, tag.value) if entry.mode == "tag" else None,
            replicas=entry.replicas,
        )

    def _distributions(
        self, hosts: Mapping[str, tuple[Origin, ...]]
    ) -> dict[str, tuple[Origin, ...]]:
        found: dict[str, tuple[Origin, ...]] = {}
        for name, entry in self._file.hosts.items():
            if entry.distribution is not None:
                known = found.get(entry.distribution, ())
                found[entry.distribution] = (*known, *hosts[name.lower()])
        return found

    def _host(self, name: str, entry: HostEntry) -> tuple[Origin, ...]:
        place = ("hosts", name)
        origins = [
            Origin(self._bucket(p.bucket, (*place, "paths", i, "bucket")), p.origin_path, p.pattern)
            for i, p in enumerate(entry.paths)
        ]
        return (*origins, Origin(self._bucket(entry.bucket, (*place, "bucket")), entry.origin_path))

    def _shared(self, entries: tuple[SharedEntry, ...]) -> SharedObjects:
        for i, entry in enumerate(entries):
            self._no_copy(self._bucket(entry.bucket, ("shared", i, "bucket")), ("shared", i))
        composed = partial(normalize, "NFC")
        return SharedObjects(
            keys=frozenset((e.bucket, composed(e.key)) for e in entries if e.key is not None),
            prefixes=tuple((e.bucket, composed(e.prefix)) for e in entries if e.prefix is not None),
            globs=tuple((e.bucket, composed(e.glob)) for e in entries if e.glob is not None),
            tags={
                bucket: frozenset(
                    (e.tag.key, e.tag.value)
                    for e in entries
                    if e.bucket == bucket and e.tag is not None
                )
                for bucket in {e.bucket for e in entries if e.tag is not None}
            },
        )

    def _look_up(self, name: str, entry: LookUpEntry) -> LookUp:
        place = ("look_ups", name)
        for i, bucket in enumerate(entry.buckets):
            self._no_copy(self._bucket(bucket, (*place, "buckets", i)), (*place, "buckets", i))
        return LookUp(
            name=name,
            table=self._named(entry.table),
            expression=entry.expression,
            many=entry.many,
            forms=entry.forms,
            buckets=frozenset(entry.buckets),
            at=self._document.where(place),
            replicas={bucket: one.replicas for bucket, one in self._file.buckets.items()},
        )

    def _account(self, entry: ActiveAccountEntry | None) -> ActiveAccount | None:
        if entry is None:
            return None
        place = ("active_account",)
        return ActiveAccount(
            table=self._claim(entry.table, (*place, "table")),
            subject=entry.subject,
            active=entry.active,
            opened_at=entry.opened_at,
            at=self._document.where(place),
        )

    def _all_looked_up(self, catalog: Catalog) -> None:
        """Whoever names an object as one of several must be found by a look-up himself."""
        looked_up = {look_up.table for look_up in catalog.look_ups}
        for name, feature in catalog.features.items():
            for table in feature.tables:
                columns = sorted(c for c, rules in table.references.items() if _counts(rules))
                if columns and table.table not in looked_up:
                    self._wrong(
                        ("features", name, table.kind, "references", columns[0]),
                        f"if_unreferenced needs a look-up of this very table:"
                        f" add one for {table.table} to `look_ups`",
                    )
        if not catalog.look_ups and any(_counts(r) for r in catalog.reference_sets.values()):
            self._wrong(("reference_sets",), "if_unreferenced needs `look_ups`; there are none")

    def _client(self, name: str, entry: ClientTableEntry) -> ClientTable:
        place = ("client_tables", name)
        if entry.client_key not in entry.mask:
            self._wrong((*place, "mask"), f"the client key stays: add `{entry.client_key}: erased`")
        kept = {*entry.primary_key, entry.request_type, entry.request_id, entry.created_at}
        for column in sorted(kept & set(entry.mask), key=str):
            self._wrong(
                (*place, "mask"), f"column {column} is needed to find the row; do not mask it"
            )
        return ClientTable(
            name=name,
            table=self._claim(entry.table or name, (*place, "table")),
            primary_key=entry.primary_key,
            client_key=entry.client_key,
            request_type=entry.request_type,
            request_id=entry.request_id,
            created_at=entry.created_at,
            masks={column: _mask(value) for column, value in entry.mask.items()},
        )

    def _feature(self, name: str) -> Feature:
        entry = self._file.features[name]
        place = ("features", name)
        tables = [self._table("feature", entry.feature, (*place, "feature"))]
        if entry.task is not None:
            tables.append(self._table("task", entry.task, (*place, "task")))
            if entry.task.request_id is None:
                self._wrong(
                    (*place, "task"), "says not whose task a row is: add `request_id: <column>`"
                )
        return Feature(
            request_type=name,
            handler=entry.handler,
            tables=tuple(tables),
            options=entry.options,
            handler_at=self._document.where((*place, "handler")),
            options_at=self._document.where((*place, "options")),
        )

    def _table(self, kind: RowKind, entry: TableEntry, place: Place) -> ProductTable:
        masks = {column: _mask(value) for column, value in entry.mask.items()}
        request_id = entry.request_id or entry.primary_key
        kept = {*entry.keep, entry.primary_key, request_id, *entry.unfinished}
        if entry.created_at is not None:
            kept.add(entry.created_at)
        elif entry.unfinished:
            self._wrong(
                (*place, "unfinished"),
                "how old may an unfinished row be? add `created_at: <column>`",
            )
        for column in sorted(kept & set(masks)):
            self._wrong((*place, "mask", column), "is masked and kept; choose one")
        for column in sorted(set(entry.references) - set(masks)):
            self._wrong(
                (*place, "references", column),
                f"names objects and is not masked; add it to `mask`, whose columns are: "
                f"{', '.join(sorted(masks))}",
            )
        for column, mask in masks.items():
            if mask.is_json and column not in entry.references:
                self._wrong(
                    (*place, "mask", column),
                    f"is JSON and may name objects: add `references: {{{column}: ...}}`"
                    " (`[]` if it names none)",
                )
        return ProductTable(
            kind=kind,
            table=self._claim(entry.table, (*place, "table")),
            primary_key=entry.primary_key,
            request_id=request_id,
            masks=masks,
            keep=frozenset(entry.keep),
            references={
                column: self._rules(entries, (*place, "references", column))
                for column, entries in entry.references.items()
            },
            created_at=entry.created_at,
            unfinished=entry.unfinished,
        )

    def _rules(self, entries: tuple[ReferenceEntry, ...], place: Place) -> Rules:
        rules = tuple(self._resolved(entries, place))
        plain = sum(isinstance(rule, ReferenceRule) and rule.at is None for rule in rules)
        if plain and len(rules) > 1:
            self._wrong(place, "a column is either one plain reference (no `at`) or JSON (`at`)")
        return rules

    def _resolved(
        self, entries: Iterable[ReferenceEntry], place: Place
    ) -> Iterable[ReferenceRule | Ignored]:
        sets = self._file.reference_sets
        for i, entry in enumerate(entries):
            here = (*place, i)
            if entry.use is not None:
                if entry.use in sets and place[0:1] != ("reference_sets",):
                    yield from self._resolved(sets[entry.use], ("reference_sets", entry.use))
                else:
                    self._wrong(here, f"unknown set {entry.use}; {did_you_mean(entry.use, sets)}")
            elif entry.ignore is not None:
                if path := self._path(entry.ignore, (*here, "ignore")):
                    yield Ignored(path)
            else:
                yield self._rule(entry, here)

    def _rule(self, entry: ReferenceEntry, here: Place) -> ReferenceRule:
        if entry.in_bucket is not None:
            self._bucket(entry.in_bucket, (*here, "in_bucket"))
        at = None if entry.at is None else self._path(entry.at, (*here, "at"))
        of_list = at is not None and entry.at is not None and entry.at.endswith("[*]")
        ownership = entry.ownership or OwnershipEntry()
        return ReferenceRule(
            ownership=Ownership(ownership.owned_under, ownership.if_unreferenced),
            only_version=entry.only_version,
            at=at,
            list_at=self._path(str(entry.at)[:-3], (*here, "at")) if of_list else None,
            urls=entry.url or (),
            key=entry.key,
            bucket=entry.bucket,
            in_bucket=entry.in_bucket,
        )

    def _path(self, written: str, place: Place) -> JsonPath | None:
        try:
            path = jsonpath.compile(written)
        except JSONPathError as error:
            self._wrong(place, f"not a JSONPath ({error.args[0]}); for example `$.fileList[*]`")
            return None
        if not written.startswith("$") or not isinstance(path, JSONPath):
            self._wrong(place, "a JSONPath begins with `$`; for example `$.fileList[*]`")
            return None
        return JsonPath(path)


def _counts(rules: Rules) -> bool:
    return any(isinstance(r, ReferenceRule) and r.ownership.if_unreferenced for r in rules)


def _mask(value: JsonValue) -> Mask:
    if value is None:
        return Mask(None)
    if isinstance(value, dict | list):
        return Mask("{}" if isinstance(value, dict) else "[]", is_json=True)
    if isinstance(value, bool):
        return Mask("true" if value else "false")
    return Mask(str(value))
