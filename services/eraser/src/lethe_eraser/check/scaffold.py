"""Print the catalog's entry for a table that nobody claims yet, from its columns and its rows.

What only a person can know is left open: `DECIDE` is no value the loader takes, so an entry that
nobody thought about does not go into use.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog, CatalogError, TableName, did_you_mean
from lethe_eraser.references import RowReader
from lethe_eraser.references.shapes import counted, parent_and_member, parsed
from lethe_eraser.storage.product_sample import SampledRow, newest_and_random
from lethe_eraser.storage.product_schema import LiveColumn, TableColumns, describe, tables_like

DECIDE: Final = "DECIDE"
SAMPLED_ROWS: Final = 500
FEW_VALUES: Final = 12
"""A text column with no more values than this in the sample is taken for a status, say."""

_TEXT: Final = ("text", "character", "varchar", "citext")
_JSON: Final = ("json", "jsonb")
_KEY_NAMES: Final = re.compile(r"(?:.*_)?(?:key|path)|.*Key", re.IGNORECASE)
_BUCKET_NAMES: Final = re.compile(r"(?:.*_)?bucket", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Sample:
    """One table, as it was found."""

    table: TableName
    columns: TableColumns
    rows: Sequence[SampledRow]

    def texts(self, column: str) -> list[str]:
        return [text for row in self.rows if (text := row.values[column])]


async def scaffold(connection: AsyncConnection, catalog: Catalog, written: str) -> str:
    """Give the entry, as YAML, of the table that is `written` with or without its schema.

    Raises:
        CatalogError: There is no such table.
    """
    schema, _, name = written.rpartition(".")
    table = TableName(schema or "public", name)
    live = await describe(connection, [(table.schema, table.name)])
    columns = live.get((table.schema, table.name))
    if columns is None:
        there = await tables_like(connection, table.schema)
        near = did_you_mean(name, there) if there else f"schema {table.schema} has none"
        raise CatalogError([f"{table}: there is no such table; {near}"])
    order = ["id"] if "id" in columns else []
    rows = await newest_and_random(
        connection, table, sorted(columns), order_by=order, limit=SAMPLED_ROWS
    )
    return _entry(_Sample(table, columns, rows), catalog)


def _entry(sample: _Sample, catalog: Catalog) -> str:
    keys = {client.client_key for client in catalog.client_tables}
    if key := next((name for name in sample.columns if name in keys), None):
        return _yaml({"client_tables": {sample.table.name: _client(sample, key, catalog)}})
    reader = RowReader(catalog)
    entry: dict[str, Any] = {"table": str(sample.table)}
    if "id" not in sample.columns:
        entry["primary_key"] = next(iter(sample.columns))
    request_id = _request_id(sample, catalog)
    if request_id is not None:
        entry["request_id"] = request_id
    masks: dict[str, object] = {}
    keep: list[str] = []
    references: dict[str, object] = {}
    for name, column in sample.columns.items():
        named = _references(sample, name, column, reader)
        if named is not None:
            masks[name] = _json_mask(sample, name, column)
            references[name] = named
        elif _is_string(column) and not _is_a_status(sample, name):
            masks[name] = "erased" if column.not_null else None
        else:
            keep.append(name)
    entry |= {"mask": masks or DECIDE, "keep": keep}
    if references:
        entry["references"] = references
    kind = "feature" if request_id is None else "task"
    feature: dict[str, Any] = {"handler": "ai_generate", kind: entry}
    return _yaml({"features": {_slug(sample.table.name): feature}})


def _client(sample: _Sample, key: str, catalog: Catalog) -> dict[str, Any]:
    def likely(names: Iterable[str | None]) -> str:
        return next((name for name in names if name in sample.columns), DECIDE) or DECIDE

    known = catalog.client_tables
    return {
        "table": str(sample.table),
        "primary_key": ["id"] if "id" in sample.columns else DECIDE,
        "client_key": key,
        "request_type": likely([*(c.request_type for c in known), "type"]),
        "request_id": likely([*(c.request_id for c in known), "feature_id"]),
        "mask": {key: "erased"},
    }


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
    if column.type_name in _JSON or (_is_string(column) and len(values) * 2 > len(texts)):
        paths = counted(values, reader.refers)
        return list(_rules(paths, counted(values, reader.is_bucket), values))
    if _is_string(column) and any(reader.refers(text) for text in texts):
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
    if objects or column.type_name in _JSON:
        return {}
    return "erased" if column.not_null else None


def _is_string(column: LiveColumn) -> bool:
    return column.type_name.startswith(_TEXT)


def _is_a_status(sample: _Sample, name: str) -> bool:
    texts = sample.texts(name)
    distinct = set(texts)
    return 0 < len(distinct) <= FEW_VALUES and len(texts) > 2 * len(distinct)


def _slug(table: str) -> str:
    return re.sub(r"_(?:feature|task)$", "", table).replace("_", "-")


def _yaml(entry: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(
        dict(entry), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return f"# Replace every {DECIDE}; `lethe catalog check` says what it takes.\n{text}"
