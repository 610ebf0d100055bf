"""Hold the catalog to the live database."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog, CatalogError, Mask, TableName, did_you_mean
from lethe_eraser.storage.product_schema import TableColumns, describe, rejected_masks


async def check_schema(connection: AsyncConnection, catalog: Catalog) -> tuple[str, ...]:
    """Hold the catalog to the live database.

    Returns:
        Columns (`schema.table.column`) of claimed tables that the catalog neither masks nor keeps.

    Raises:
        CatalogError: A claimed table or column is missing, or a mask does not fit its column.
    """
    claimed: list[tuple[TableName, frozenset[str], Mapping[str, Mask]]] = [
        (c.table, c.columns, c.masks) for c in catalog.client_tables
    ]
    claimed += [(t.table, t.columns, t.masks) for f in catalog.features.values() for t in f.tables]
    live = await describe(connection, {(t.schema, t.name) for t, _, _ in claimed})
    problems: list[str] = []
    unclaimed: list[str] = []
    texts: list[tuple[str, str, str]] = []
    for table, columns, masks in claimed:
        found = live.get((table.schema, table.name))
        if found is None:
            problems.append(f"{table}: the catalog claims this table and the database has none")
            continue
        problems += _column_problems(table, columns, masks, found)
        unclaimed += [f"{table}.{name}" for name in sorted(set(found) - columns)]
        texts += [
            (f"{table}.{name}", mask.text, found[name].type_name)
            for name, mask in masks.items()
            if name in found and mask.text is not None
        ]
    problems += [
        f"{column}: its type {type_name} does not take the mask {text!r}; write another"
        for column, text, type_name in await rejected_masks(connection, texts)
    ]
    if problems:
        raise CatalogError(problems)
    client_columns = {f"{c.table}." for c in catalog.client_tables}
    return tuple(c for c in unclaimed if not any(c.startswith(prefix) for prefix in client_columns))


def _column_problems(
    table: TableName, columns: frozenset[str], masks: Mapping[str, Mask], found: TableColumns
) -> list[str]:
    problems = [
        f"{table}.{name}: the catalog claims this column and the table has none;"
        f" {did_you_mean(name, found)}"
        for name in sorted(columns - set(found))
    ]
    for name, mask in masks.items():
        column = found.get(name)
        if column is None:
            continue
        if mask.text is None and column.not_null:
            problems.append(
                f"{table}.{name}: is NOT NULL, so the mask cannot be null; write a constant"
            )
        if column.generated:
            problems.append(
                f"{table}.{name}: is generated and cannot be masked; mask what it is made of"
            )
    return problems
