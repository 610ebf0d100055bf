"""Rows of requests in the product's tables: those that are not masked yet, and masking them.

One statement per table and batch, written once per table: writing it anew takes longer than
PostgreSQL needs to answer. Nothing here commits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Select,
    Text,
    Update,
    any_,
    bindparam,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import ProductTable
from lethe_eraser.storage.arrays import BigIntegers
from lethe_eraser.storage.catalogued import mask_values, table_of

VALUE_LIMIT: Final = 1_048_576
"""Characters of a reference column that are read."""

_STATEMENTS_KEPT: Final = 512


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of a request that is not masked yet; `values` are its reference columns as text."""

    row_id: int
    row_version: str
    request_id: int
    values: Mapping[str, str | None]
    uncovered: bool = False
    """Whether it holds anything in a column that nobody claims."""

    @property
    def is_cut(self) -> bool:
        """Whether a value has more than `VALUE_LIMIT` characters, and was not read to its end."""
        return any(value is not None and len(value) > VALUE_LIMIT for value in self.values.values())


async def unmasked_rows(
    connection: AsyncConnection,
    product: ProductTable,
    request_ids: Sequence[int],
    unclaimed: Sequence[str] = (),
) -> list[StoredRow]:
    """Read the rows of `request_ids` in which a masked column still holds anything else.

    Rows that hold anything in one of the `unclaimed` columns come as well, and say so.
    """
    if not request_ids:
        return []
    names = sorted(product.references)
    rows = await connection.execute(_reading(product, tuple(unclaimed)), {"requests": request_ids})
    return [
        StoredRow(row_id, version, request_id, dict(zip(names, texts, strict=True)), uncovered)
        for row_id, version, request_id, uncovered, *texts in rows
    ]


async def mask_rows(
    connection: AsyncConnection, product: ProductTable, versions: Mapping[int, str]
) -> frozenset[int]:
    """Mask rows by id, each only if its version is still the given one; gives the masked ids."""
    if not versions:
        return frozenset()
    wanted = {"wanted_ids": list(versions), "wanted_versions": list(map(int, versions.values()))}
    return frozenset((await connection.execute(_masking(product), wanted)).scalars())


@lru_cache(_STATEMENTS_KEPT)
def _reading(product: ProductTable, unclaimed: tuple[str, ...]) -> Select[Any]:
    rows = table_of(product.table, {*product.columns, *unclaimed, "xmin"})
    key, request = rows.c[product.primary_key], rows.c[product.request_id]
    uncovered = or_(false(), *(rows.c[name].is_not(None) for name in unclaimed))
    references = (rows.c[name] for name in sorted(product.references))
    unmasked = (
        cast(rows.c[name], Text).is_distinct_from(literal(mask.text, Text))
        for name, mask in sorted(product.masks.items())
    )
    return (
        select(
            key,
            cast(rows.c.xmin, Text),
            request,
            uncovered,
            *(func.left(cast(column, Text), VALUE_LIMIT + 1) for column in references),
        )
        .where(
            request == any_(bindparam("requests", type_=BigIntegers())), or_(*unmasked, uncovered)
        )
        .order_by(key)
    )


@lru_cache(_STATEMENTS_KEPT)
def _masking(product: ProductTable) -> Update:
    rows = table_of(product.table, {*product.columns, "xmin"})
    key = rows.c[product.primary_key]
    wanted = (
        func.unnest(
            bindparam("wanted_ids", type_=BigIntegers()),
            bindparam("wanted_versions", type_=BigIntegers()),
        )
        .table_valued("id", "version")
        .render_derived(name="wanted")
    )
    version = cast(cast(rows.c.xmin, Text), BigInteger)
    return (
        update(rows)
        .values(mask_values(product.masks))
        .where(key == wanted.c.id, version == wanted.c.version)
        .returning(key)
    )
