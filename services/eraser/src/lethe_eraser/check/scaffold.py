"""Print the catalog's entry for a table that nobody claims yet, from its columns and its rows.

What only a person can know is left open: `DECIDE` is no value the loader takes, so an entry that
nobody thought about does not go into use.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import yaml
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog, CatalogError, TableName
from lethe_eraser.catalog_schema import DECIDE, is_a_name
from lethe_eraser.check.fit import WHOLE_NUMBERS
from lethe_eraser.check.relations import no_tables, of_somebody_else
from lethe_eraser.references import RowReader
from lethe_eraser.references.shapes import counted, parent_and_member, parsed
from lethe_eraser.storage.product_relations import Tie, keys, numbered, relations, ties
from lethe_eraser.storage.product_sample import SampledRow, newest_and_random
from lethe_eraser.storage.product_schema import LiveColumn, TableColumns, describe, tables_like

SAMPLED_ROWS: Final = 500
FEW_VALUES: Final = 12
"""A text column with no more words than this in the sample is taken for a status, say."""
ENOUGH_VALUES: Final = 20
"""Fewer values than these tell no status from three notes that happen to say the same."""

_LISTED: Final = 12
_WORD: Final = re.compile(r"\S{1,40}")

_JSON: Final = ("json", "jsonb")
_ARRAY: Final = "A"
_STRING: Final = "S"
_TELLS_NOTHING: Final = frozenset("NBDTE")
"""Categories of types that are kept: numbers, truth, dates, spans of time, enumerations."""
_LENGTH: Final = re.compile(r"\((\d+)\)")
_KEY_NAMES: Final = re.compile(r"(?:.*_)?(?:key|path)|.*Key", re.IGNORECASE)
_BUCKET_NAMES: Final = re.compile(r"(?:.*_)?bucket", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Sample:
    """One table, as it was found."""

    table: TableName
    columns: TableColumns
    rows: Sequence[SampledRow]
    key: tuple[str, ...]
    """What tells its rows apart; empty if nothing does."""
    numbered: Sequence[str]
    ties: Sequence[Tie]
    of_people: frozenset[str]
    """Columns that are named as client keys are: few people are no status."""

    def texts(self, column: str) -> list[str]:
        return [text for row in self.rows if (text := row.values[column])]

    def tied(self, column: str) -> Tie | None:
        return next((tie for tie in self.ties if column in tie.columns), None)


async def scaffold(connection: AsyncConnection, catalog: Catalog, written: str) -> str:
    """Give the entry, as YAML, of the table that is `written` with or without its schema.

    Raises:
        CatalogError: There is no such table, or it is none that a catalog can name.
    """
    table = _named(written)
    place = (table.schema, table.name)
    columns = (await describe(connection, [place])).get(place)
    if (refusal := await _refusal(connection, table, columns)) is not None:
        raise CatalogError([refusal])
    columns = columns or {}
    found = (await keys(connection, [place])).get(place, [])
    key = found[0] if found else ()
    rows = await newest_and_random(
        connection, table, sorted(columns), order_by=key, limit=SAMPLED_ROWS
    )
    tied = (await ties(connection, [place])).get(place, [])
    of_people = frozenset(name for name in columns if _names_people(name, catalog))
    sample = _Sample(table, columns, rows, key, await numbered(connection, place), tied, of_people)
    return _entry(sample, catalog)


def _names_people(column: str, catalog: Catalog) -> bool:
    return any(client.client_key.lower() in column.lower() for client in catalog.client_tables)


def _named(written: str) -> TableName:
    """Read a name as it stands in a catalog, or quoted as it stands in SQL."""
    schema, _, name = (part.strip('"') for part in written.rpartition("."))
    if not name:
        raise CatalogError(["a table has a name: `lethe catalog scaffold client`"])
    return TableName(schema or "public", name)


async def _refusal(
    connection: AsyncConnection, table: TableName, columns: TableColumns | None
) -> str | None:
    """Why there is no entry for `table`, and what to do instead."""
    if (whose := of_somebody_else(table)) is not None:
        return whose
    if (no_table := (await no_tables(connection, [table])).get(table)) is not None:
        return no_table
    if columns is None:
        there = await tables_like(connection, table.schema)
        return f"{table}: there is no such table; {_instead(table, there)}"
    place = (table.schema, table.name)
    whole = (await relations(connection, [place]))[place].partition_of
    if whole is not None:
        parent = TableName(*whole)
        return f"{table}: is a partition; `lethe catalog scaffold {parent}` prints the entry"
    if not (is_a_name(table.schema) and is_a_name(table.name)):
        return f"{table}: a catalog takes letters, digits, _ and $ in names; rename the table"
    return None


def _instead(table: TableName, there: Sequence[str]) -> str:
    near = get_close_matches(table.name, there, n=3)
    if near or len(there) > _LISTED:
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        return f"{meant}schema {table.schema} has {len(there)} tables"
    return f"schema {table.schema} has {', '.join(there) or 'none'}"


def _entry(sample: _Sample, catalog: Catalog) -> str:
    notes = [*_of_names(sample), *_of_claims(sample.table, catalog)]
    names = {client.client_key for client in catalog.client_tables}
    if key := next((name for name in sample.columns if name in names), None):
        if not sample.key:
            notes.append(_NO_KEY)
        entry = {"client_tables": {sample.table.name: _client(sample, key, catalog)}}
        return _yaml(entry, notes)
    request_id = _request_id(sample, catalog)
    kind = "feature" if request_id is None else "task"
    if kind == "task":
        notes.append("A task stands beside the `feature` of its type: put it there.")
    reader = RowReader(catalog)
    entry = _product(sample, reader, request_id, notes)
    feature: dict[str, Any] = {"handler": "ai_generate", kind: entry}
    return _yaml({"features": {_slug(sample.table.name): feature}}, notes)


def _product(
    sample: _Sample, reader: RowReader, request_id: str | None, notes: list[str]
) -> dict[str, Any]:
    entry: dict[str, Any] = {"table": str(sample.table)}
    key = _one_key(sample, notes)
    if key != "id":
        entry["primary_key"] = key
    if request_id is not None:
        entry["request_id"] = request_id
    found_by = sample.columns.get(request_id or key)
    if found_by is not None and found_by.base_type not in WHOLE_NUMBERS:
        notes.append(f"{request_id or key} is {found_by.type_name}: {_WHOLE_NUMBER}")
    masks: dict[str, object] = {}
    keep: list[str] = []
    references: dict[str, object] = {}
    kept = {*sample.key, key, request_id}
    for name, column in sample.columns.items():
        if not is_a_name(name):
            continue
        if column.generated or name in kept:
            keep.append(name)
        elif (named := _references(sample, name, column, reader)) is not None:
            masks[name] = _json_mask(sample, name, column)
            references[name] = named
        elif _is_kept(sample, name, column):
            keep.append(name)
        else:
            masks[name] = _plain_mask(sample, name, column, reader, notes)
    notes += _of_words(sample, [name for name in keep if name not in kept])
    entry |= {"mask": masks or DECIDE, "keep": keep}
    if references:
        entry["references"] = references
    return entry


def _plain_mask(
    sample: _Sample, name: str, column: LiveColumn, reader: RowReader, notes: list[str]
) -> object:
    """What a column holds once it is masked that names no object by itself."""
    tie = sample.tied(name)
    if tie is not None:
        notes.append(_of_tie(name, tie))
        return DECIDE if column.not_null or not tie.points else None
    if column.category != _ARRAY:
        return _constant(column) if column.not_null else None
    if any(reader.is_ours(text) for text in sample.texts(name)):
        notes.append(_ARRAY_OF_OBJECTS.format(name=name))
        return DECIDE
    return "{}" if column.not_null else None


def _one_key(sample: _Sample, notes: list[str]) -> str:
    """The one column by which the eraser finds a row again."""
    if len(sample.key) == 1:
        return sample.key[0]
    if not sample.key:
        notes.append(_NO_KEY)
        return DECIDE
    alone = [name for name in sample.key if name in sample.numbered]
    whole = ", ".join(sample.key)
    notes.append(f"The key is ({whole}); `primary_key` takes one column, unique by itself.")
    return alone[0] if len(alone) == 1 else DECIDE


_NO_KEY: Final = "Nothing tells its rows apart: give the table a primary key."
_WHOLE_NUMBER: Final = "the id of a request, by which its rows are found, is a whole number."
_ARRAY_OF_OBJECTS: Final = (
    "{name} is an array that names objects, and no rule reads arrays: keep them in JSON, or write"
    " a handler."
)


def _of_tie(name: str, tie: Tie) -> str:
    how = "refers to" if tie.points else "is referred to by"
    return f"{name} {how} {TableName(*tie.other)}: it goes into `keep` unless it tells of a person."


def _of_words(sample: _Sample, keep: Iterable[str]) -> Iterator[str]:
    for name in keep:
        column = sample.columns[name]
        if column.category == _STRING and not column.generated:
            yield f"{name} is kept for its few different words: mask it if they tell of a person."


def _of_names(sample: _Sample) -> Iterator[str]:
    odd = [name for name in sample.columns if not is_a_name(name)]
    if odd:
        yield (
            f"No catalog can name {', '.join(map(repr, odd))}: rename what is not of letters,"
            " digits, _ and $. Rows that hold anything there are left."
        )


def _of_claims(table: TableName, catalog: Catalog) -> Iterator[str]:
    for client in catalog.client_tables:
        if client.table == table:
            yield f"The catalog has this table: client_tables.{client.name}."
    for name, feature in catalog.features.items():
        for one in feature.tables:
            if one.table == table:
                yield f"The catalog has this table: features.{name}.{one.kind}."
    if catalog.active_account is not None and catalog.active_account.table == table:
        yield "The catalog has this table: active_account."
    if table in catalog.ignored_tables:
        yield "The catalog has this table: ignored_tables."


def _client(sample: _Sample, key: str, catalog: Catalog) -> dict[str, Any]:
    def likely(names: Iterable[str | None]) -> str | None:
        return next((name for name in names if name in sample.columns), None)

    known = catalog.client_tables
    entry = {
        "table": str(sample.table),
        "primary_key": list(sample.key) or DECIDE,
        "client_key": key,
        "request_type": likely([*(c.request_type for c in known), "type"]) or DECIDE,
        "request_id": likely([*(c.request_id for c in known), "feature_id"]) or DECIDE,
    }
    created_at = likely([*(c.created_at for c in known), "created_at"])
    if created_at is not None:
        entry["created_at"] = created_at
    return entry | {"mask": {key: _constant(sample.columns[key])}}


def _request_id(sample: _Sample, catalog: Catalog) -> str | None:
    known = {
        table.request_id
        for feature in catalog.features.values()
        for table in feature.tables
        if table.kind == "task"
    }
    return next((name for name in sample.columns if name in known), None)


def _references(
    sample: _Sample, name: str, column: LiveColumn, reader: RowReader
) -> list[dict[str, object]] | dict[str, object] | None:
    """What a column names; None if it is neither JSON nor a URL."""
    texts = sample.texts(name)
    values = [value for text in texts if isinstance(value := parsed(text), dict | list)]
    is_string = column.category == _STRING
    if column.base_type in _JSON or (is_string and len(values) * 2 > len(texts)):
        paths = counted(values, reader.refers)
        return list(_rules(paths, counted(values, reader.is_bucket), values))
    if is_string and any(reader.refers(text) for text in texts):
        return {"ownership": DECIDE}
    return None


def _rules(
    paths: Iterable[str], buckets_at: Iterable[str], values: Sequence[object]
) -> Iterator[dict[str, object]]:
    by_parent: dict[str, set[str]] = {}
    for path in paths:
        parent, member = parent_and_member(path)
        by_parent.setdefault(parent, set()).add(member)
    # Keys look like no URL: they are told by the names beside a URL or a bucket.
    beside = counted(values, bool)
    for path in beside:
        parent, member = parent_and_member(path)
        if _KEY_NAMES.fullmatch(member) or _BUCKET_NAMES.fullmatch(member):
            by_parent.setdefault(parent, set()).add(member)
    known = {parent_and_member(path) for path in buckets_at}
    for parent, members in sorted(by_parent.items()):
        buckets = sorted(m for m in members if (parent, m) in known or _BUCKET_NAMES.fullmatch(m))
        keys = sorted(m for m in members if _KEY_NAMES.fullmatch(m))
        urls = sorted(members - set(buckets) - set(keys) - {""})
        rule: dict[str, object] = {"at": parent}
        if urls:
            rule["url"] = urls
        if keys:
            rule["key"] = keys[0]
        if buckets and (keys or urls):
            rule["bucket"] = buckets[0]
        if urls or keys or "" in members:
            yield rule | {"ownership": DECIDE}


def _json_mask(sample: _Sample, name: str, column: LiveColumn) -> object:
    values = [parsed(text) for text in sample.texts(name)]
    lists = sum(isinstance(value, list) for value in values)
    objects = sum(isinstance(value, dict) for value in values)
    if lists > objects:
        return []
    if objects or column.base_type in _JSON:
        return {}
    return _constant(column) if column.not_null else None


def _is_kept(sample: _Sample, name: str, column: LiveColumn) -> bool:
    if name in sample.of_people:
        return False
    if column.category == _STRING:
        texts = sample.texts(name)
        if len(texts) < ENOUGH_VALUES:
            return False
        distinct = set(texts)
        words = all(_WORD.fullmatch(text) for text in distinct)
        return words and 0 < len(distinct) <= FEW_VALUES and len(texts) > 2 * len(distinct)
    return column.category in _TELLS_NOTHING or column.base_type == "uuid"


def _constant(column: LiveColumn) -> str:
    """What a column that takes no NULL holds once it is masked."""
    if column.category != _STRING:
        return DECIDE
    length = _LENGTH.search(column.type_name)
    return "erased"[: int(length[1])] if length else "erased"


def _slug(table: str) -> str:
    return re.sub(r"_(?:feature|task)$", "", table).replace("_", "-")


def _yaml(entry: Mapping[str, Any], notes: Iterable[str]) -> str:
    text: str = yaml.safe_dump(
        dict(entry), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    if DECIDE in text:
        notes = [f"Replace every {DECIDE}; `lethe catalog check` says what it takes.", *notes]
    return "".join(f"# {note}\n" for note in notes) + text
