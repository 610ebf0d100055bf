"""What only erasing would find out: masks that are never reached, keys that name two rows."""

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog, ClientTable, Mask, ProductTable, TableName
from lethe_eraser.storage.product_relations import (
    Place,
    Tie,
    hidden,
    keys,
    numbered,
    relations,
    ties,
)
from lethe_eraser.storage.product_schema import TableColumns, rewritten_masks

WHOLE_NUMBERS: Final = frozenset({"smallint", "integer", "bigint"})
"""Types that the id of a request, and that of its row, may have."""

KEY_PARTS: Final = WHOLE_NUMBERS | {
    "text",
    "character varying",
    "uuid",
    "boolean",
    "timestamp with time zone",
    "timestamp without time zone",
}
"""Types that a part of a client table's key may have: a cursor holds them without loss."""

TEXT: Final = "S"
"""PostgreSQL's category of what is compared with a text as it is."""

_LISTED: Final = ", ".join(sorted(KEY_PARTS))


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
    unique = await keys(connection, places)
    problems = [
        f"{TableName(*place)}: row-level security may hide rows from this role, and what it hides"
        " is never found; give the role BYPASSRLS"
        for place in await hidden(connection, {*live, *_looked_up(catalog)})
    ]
    for product in (table for feature in catalog.features.values() for table in feature.tables):
        problems += await _of_number(connection, product, unique)
    for table, masks in masked:
        problems += _of_ties(table, masks, tied.get((table.schema, table.name), []))
    for client in catalog.client_tables:
        problems += _of_key(client, unique.get((client.table.schema, client.table.name), []))
    problems += _of_types(catalog, live)
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


def _looked_up(catalog: Catalog) -> set[Place]:
    return {(look_up.table.schema, look_up.table.name) for look_up in catalog.look_ups}


async def _of_number(
    connection: AsyncConnection,
    product: ProductTable,
    unique: Mapping[Place, list[tuple[str, ...]]],
) -> list[str]:
    place, key = (product.table.schema, product.table.name), product.primary_key
    named = [one for one in unique.get(place, []) if key in one]
    # Where a sequence fills it, or the key of the partitions must stand beside it, it is unique.
    if (key,) in named or key in await numbered(connection, place):
        return []
    if named and (await relations(connection, [place]))[place].kind == "p":
        return []
    says = "and one would be masked for the other; make it unique, or name another `primary_key`"
    return [f"{product.table}: two rows may have the same {key}, {says}"]


def _of_types(catalog: Catalog, live: Mapping[Place, TableColumns]) -> Iterator[str]:
    """What a job writes down of a row and reads again must be of a type that it can write."""
    products = [table for feature in catalog.features.values() for table in feature.tables]
    requests = {(c.table, c.request_id) for c in catalog.client_tables}
    requests |= {(p.table, p.request_id) for p in products}
    rows = {(p.table, p.primary_key) for p in products} - requests
    parts = {(c.table, part) for c in catalog.client_tables for part in c.primary_key} - requests
    number = "is a whole number (smallint, integer or bigint)"
    for columns, types, must in (
        (requests, WHOLE_NUMBERS, f"the id of a request {number}"),
        (rows, WHOLE_NUMBERS, f"the primary key of a product table {number}"),
        (parts, KEY_PARTS, f"a part of a client table's key is one of {_LISTED}"),
    ):
        for table, name in sorted(columns, key=str):
            column = live[table.schema, table.name][name]
            if column.base_type not in types:
                yield f"{table}.{name}: is {column.type_name}; {must}"
    for client in catalog.client_tables:
        for name, what in (
            (client.client_key, "client key"),
            (client.request_type, "request type"),
        ):
            column = live[client.table.schema, client.table.name][name]
            if column.category != TEXT:
                yield f"{client.table}.{name}: is {column.type_name}; a {what} is compared as text"
