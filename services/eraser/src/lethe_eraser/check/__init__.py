"""Hold the catalog to the live database: to its schema, and to a sample of its rows.

What erasing would break refuses (`CatalogError`). What nobody claims is told (`Finding`): erasing
goes on, and the jobs that meet it end `blocked: uncovered`.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog, Finding
from lethe_eraser.check.rows import check_rows
from lethe_eraser.check.schema import check_schema, unclaimed_tables, unclaimed_tables_of

SAMPLED_ROWS: Final = 200
"""Rows that are read of the newest of every table, and about as many at random."""

__all__ = ["check", "check_schema", "unclaimed_tables", "unclaimed_tables_of"]


async def check(
    connection: AsyncConnection, catalog: Catalog, *, sampled_rows: int = SAMPLED_ROWS
) -> Sequence[Finding]:
    """Hold the catalog to everything; gives what nobody claims.

    Raises:
        CatalogError: Erasing by this catalog would fail.
    """
    findings = [
        Finding("column", name, "nobody claims it; a row that holds anything there is left")
        for name in await check_schema(connection, catalog)
    ]
    findings += [
        Finding(
            "table",
            f"{one.schema}.{one.table}",
            f"has a client key ({one.column}) and nobody claims it;"
            f" `lethe catalog scaffold {one.schema}.{one.table}` prints an entry,"
            " `ignored_tables` says why there is nothing to erase",
        )
        for one in await unclaimed_tables(connection, catalog)
    ]
    return (*findings, *await check_rows(connection, catalog, sampled_rows))
