"""What only erasing would find out: masks that are never reached, keys that name two rows."""

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog, ClientTable, Mask, TableName
from lethe_eraser.storage.product_relations import Place, Tie, keys, ties
from lethe_eraser.storage.product_schema import TableColumns, rewritten_masks

WHOLE_NUMBERS: Final = frozenset({"smallint", "integer", "bigint"})
"""Types that the id of a request may have."""


async def misfits(
    connection: AsyncConnection, catalog: Catalog, live: Mapping[Place, TableColumns]
) -> list[str]:
    """Say what erasing by the catalog would fail at, or do to rows of somebody else.

    Args:
        connection: to the product's database.
        catalog: its tables and columns all exist, and its masks are values of their columns.
        live: the columns of those tables.
    """
    masked: list[tuple[TableName, Mapping[str, Mask]]] = [
        *((client.table, client.masks) for client in catalog.client_tables),
        *((t.table, t.masks) for f in catalog.features.values() for t in f.tables),
    ]
    places = [(table.schema, table.name) for table, _ in masked]
    tied = await ties(connection, places)
    unique = await keys(connection, [(c.table.schema, c.table.name) for c in catalog.client_tables])
    problems: list[str] = []
    for table, masks in masked:
        problems += _of_ties(table, masks, tied.get((table.schema, table.name), []))
    for client in catalog.client_tables:
        problems += _of_key(client, unique.get((client.table.schema, client.table.name), []))
    problems += _of_request_ids(catalog, live)
    constants = [
        (f"{table}.{name}", mask.text, live[table.schema, table.name][name].type_name)
        for table, masks in masked
        for name, mask in masks.items()
        if mask.text is not None
    ]
    return problems + [
        f"{column}: PostgreSQL writes the mask {text!r} as {becomes!r}; write it so, or a masked"
        " row is never seen as one"
        for column, text, becomes in await rewritten_masks(connection, constants)
    ]


def _of_ties(table: TableName, masks: Mapping[str, Mask], tied: list[Tie]) -> Iterator[str]:
    for tie in tied:
        other = TableName(*tie.other)
        for name in sorted(tie.columns & set(masks)):
            if not tie.points:
                yield f"{table}.{name}: {other} refers to it by a foreign key; keep it"
            elif masks[name].text is not None:
                yield f"{table}.{name}: is a foreign key to {other}; mask it to null, or keep it"


def _of_key(client: ClientTable, unique: list[tuple[str, ...]]) -> Iterator[str]:
    if any(set(key) <= set(client.primary_key) for key in unique):
        return
    written = ", ".join(client.primary_key)
    instead = f"write [{', '.join(unique[0])}]" if unique else "give the table a primary key"
    yield (
        f"{client.table}: two rows may have the same [{written}], and one would be masked for the"
        f" other; {instead}"
    )


def _of_request_ids(catalog: Catalog, live: Mapping[Place, TableColumns]) -> Iterator[str]:
    columns = [(c.table, c.request_id) for c in catalog.client_tables]
    columns += [(t.table, t.request_id) for f in catalog.features.values() for t in f.tables]
    for table, name in columns:
        column = live[table.schema, table.name][name]
        if column.base_type not in WHOLE_NUMBERS:
            yield (
                f"{table}.{name}: is {column.type_name}; the id of a request is a whole number"
                " (smallint, integer or bigint)"
            )
