"""A few rows of the product's tables, for holding the catalog to what really stands in them.

Read-only and bounded: the newest rows by primary key, and as many from pages picked at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Mask, TableName
from lethe_eraser.storage.names import literal, qualified, quote
from lethe_eraser.storage.product_schema import Constraint, TableColumns

VALUE_LIMIT: Final = 65_536
"""Characters of a sampled value; a longer one is not judged."""


@dataclass(frozen=True, slots=True)
class SampledRow:
    """Columns of one row as text; None also for a value that is too long to be judged."""

    values: Mapping[str, str | None]


async def newest_and_random(
    connection: AsyncConnection,
    table: TableName,
    columns: Sequence[str],
    *,
    order_by: Sequence[str],
    limit: int,
) -> list[SampledRow]:
    """Read up to `limit` of the newest rows (by `order_by`) and about as many random ones."""
    if not columns:
        return []
    values = ", ".join(
        f"case when length({quote(c)}::text) <= {VALUE_LIMIT} then {quote(c)}::text end"
        for c in columns
    )
    newest = ""
    if order_by:
        newest = " order by " + ", ".join(f"{quote(c)} desc" for c in order_by)
    rows = [
        *await connection.execute(
            # Names are the catalog's, quoted.
            text(f"select {values} from {qualified(table)}{newest} limit :limit"),  # noqa: S608 - as said above
            {"limit": limit},
        )
    ]
    if len(rows) == limit:
        share = await _share(connection, table, limit)
        rows += await connection.execute(
            # As above; the share is a number of ours.
            text(
                f"select {values} from {qualified(table)} "  # noqa: S608 - as said above
                f"tablesample system ({share}) limit :limit"
            ),
            {"limit": limit},
        )
    return [SampledRow(dict(zip(columns, row, strict=True))) for row in rows]


async def holds_rows_of(
    connection: AsyncConnection, table: TableName, column: str, value: str
) -> bool:
    """Whether any row of `table` has `value` in `column`; ask only where an index serves it."""
    found = await connection.execute(
        # Names are the database's own, quoted.
        text(
            f"select exists (select from {qualified(table)} "  # noqa: S608 - as said above
            f"where {quote(column)} = :value)"
        ),
        {"value": value},
    )
    return bool(found.scalar())


async def breaks_check(
    connection: AsyncConnection,
    table: TableName,
    live: TableColumns,
    masks: Mapping[str, Mask],
    constraint: Constraint,
    limit: int,
) -> bool:
    """Whether a CHECK would refuse the mask: on any of the newest rows, or whatever else is there.

    The masked row is built in the query; nothing is written.
    """
    masked = [
        f"cast(:{_parameter(i)} as {live[name].type_name}) as {quote(name)}"
        if name in masks
        else quote(name)
        for i, name in enumerate(live)
    ]
    alone = [
        part if name in masks else f"cast(null as {live[name].type_name}) as {quote(name)}"
        for name, part in zip(live, masked, strict=True)
    ]
    statement = text(
        # Names, types and the expression are the database's own.
        f"select exists (select from ("  # noqa: S608 - as said above
        f"(select {', '.join(masked)} from {qualified(table)} limit :limit)"
        f" union all select {', '.join(alone)}) as {quote(table.name)}"
        f" where ({literal(constraint.expression)}) is false)"
    )
    values = {_parameter(i): masks[name].text for i, name in enumerate(live) if name in masks}
    return bool((await connection.execute(statement, {**values, "limit": limit})).scalar())


async def _share(connection: AsyncConnection, table: TableName, rows: int) -> float:
    """Per cent of a table's pages that hold about `rows` rows."""
    estimate = await connection.execute(
        text(
            "select c.reltuples from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = :schema and c.relname = :name"
        ),
        {"schema": table.schema, "name": table.name},
    )
    total = float(estimate.scalar() or 0)
    return 100.0 if total <= rows else max(100.0 * rows / total, 0.0001)


def _parameter(index: int) -> str:
    return f"m{index}"
