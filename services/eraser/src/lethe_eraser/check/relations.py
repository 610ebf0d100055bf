"""Which names of the database are tables of the product, and why the others are not."""

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import TableName
from lethe_eraser.storage.product_relations import Place, Relation, relations
from lethe_eraser.storage.tables import SCHEMA

_NAME_ANOTHER: Final = "a catalog names tables of the product alone"
_SAY_SO: Final = "if it has a client key, say so in `ignored_tables`"
_NO_TABLE: Final[Mapping[str, str]] = {
    "v": "is a view, which holds no rows of its own; name the table that it reads",
    "m": f"is a materialized view: refresh it once its tables are erased, and {_SAY_SO}",
    "f": f"is a foreign table: its rows are erased where they lie, and here, {_SAY_SO}",
}


def of_somebody_else(table: TableName) -> str | None:
    """Say whose `table` is if it is not the product's, by its schema; None if it may be."""
    if table.schema == SCHEMA:
        return f"{table}: is Lethe's own; {_NAME_ANOTHER}"
    if table.schema == "information_schema" or table.schema.startswith("pg_"):
        return f"{table}: is PostgreSQL's own; {_NAME_ANOTHER}"
    return None


async def no_tables(
    connection: AsyncConnection, tables: Collection[TableName]
) -> dict[TableName, str]:
    """Say of those of `tables` that are no tables of the product why not, and what to do.

    A name that stands for nothing is not among them.
    """
    found: dict[Place, Relation] = await relations(connection, [(t.schema, t.name) for t in tables])
    said: dict[TableName, str] = {}
    for table in tables:
        relation = found.get((table.schema, table.name))
        whose = of_somebody_else(table)
        if whose is not None:
            said[table] = whose
        elif relation is not None and relation.kind not in {"r", "p"}:
            said[table] = f"{table}: {_NO_TABLE.get(relation.kind, 'is no table')}"
    return said
