"""What the verification scan asks the product's tables; shares no statement with `product.py`.

It asks from the other side: not "which rows are to be masked" but "which values are still there".
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import ClientTable, ProductTable, Settle
from lethe_eraser.storage.client_rows import PrimaryKey
from lethe_eraser.storage.names import qualified, quote

_AT_ONCE: Final = 2000
_LONGEST: Final = timedelta(days=36_500)
"""Now and this make a moment that PostgreSQL can hold, in either direction."""
_COLUMNS: Final = text(
    "select attname from pg_attribute"
    " where attnum > 0 and not attisdropped"
    " and attrelid = to_regclass(format('%I.%I', cast(:schema as text), cast(:name as text)))"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A client row that still names the person."""

    primary_key: PrimaryKey
    request_type: str
    request_id: int | None


async def claims(
    connection: AsyncConnection, source: ClientTable, subject: str
) -> AsyncIterator[Claim]:
    """Read every client row of the person, in no order, a stretch at a time.

    Rows that are masked are nobody's, whatever `subject` is.
    """
    if source.masks_as(subject):
        return
    key = ", ".join(quote(name) for name in source.primary_key)
    statement = text(
        # Names are the catalog's, quoted; the value is a parameter.
        f"select coalesce({quote(source.request_type)}::text, ''), "  # noqa: S608 - as said above
        f"{quote(source.request_id)}, {key} from {qualified(source.table)} "
        f"where {quote(source.client_key)} = :subject"
    ).execution_options(yield_per=_AT_ONCE)
    async with connection.stream(statement, {"subject": subject}) as rows:
        async for request_type, request_id, *primary_key in rows:
            yield Claim(tuple(primary_key), request_type, request_id)


async def survivors(
    connection: AsyncConnection, product: ProductTable, request_ids: Sequence[int]
) -> list[tuple[int, int]]:
    """Give (row id, request id) of rows in which a value is left that should be masked.

    A value in a column that the catalog says nothing about is left, too.
    """
    left: list[tuple[int, int]] = []
    table = {"schema": product.table.schema, "name": product.table.name}
    there = await connection.execute(_COLUMNS, table)
    unclaimed = [name for name in there.scalars() if name not in product.columns]
    values = {f"m{i}": mask.text for i, mask in enumerate(product.masks.values())}
    # A value that was never there is as good as masked.
    remains = " or ".join(
        f"({quote(name)} is not null and {quote(name)}::text is distinct from cast(:m{i} as text))"
        for i, name in enumerate(product.masks)
    )
    remains += "".join(f" or {quote(name)} is not null" for name in unclaimed)
    request_id = quote(product.request_id)
    statement = text(
        # Names are the catalog's, quoted; values are parameters.
        f"select {quote(product.primary_key)}, {request_id} "  # noqa: S608 - as said above
        f"from {qualified(product.table)} "
        f"where {request_id} = any(cast(:ids as bigint[])) and ({remains})"
    )
    for begin in range(0, len(request_ids), _AT_ONCE):
        ids = list(request_ids[begin : begin + _AT_ONCE])
        rows = await connection.execute(statement, {"ids": ids, **values})
        left += [(row_id, request_id) for row_id, request_id in rows]
    return left


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A row that the product may still write to."""

    row_id: int
    request_id: int
    waits_for: timedelta | None
    """How long it may take to settle; None if that is longer than is waited.

    It is unfinished for longer than that, or dated further in the future.
    """


async def unsettled(
    connection: AsyncConnection, product: ProductTable, request_ids: Sequence[int], settle: Settle
) -> list[Unsettled]:
    """Give the rows that are younger than `settle.after`, or that the product calls unfinished."""
    if product.created_at is None or not (settle.after or product.unfinished):
        return []
    created = quote(product.created_at)
    columns = sorted(product.unfinished)
    unfinished = " or ".join(
        f"{quote(name)}::text = any(cast(:u{i} as text[]))" for i, name in enumerate(columns)
    )
    request_id = quote(product.request_id)
    # Moments are compared, and subtracted only within these bounds: `infinity` minus anything is
    # no interval that could be read.
    statement = text(
        # Names are the catalog's, quoted; values are parameters.
        f"select row_id, request_id, case"  # noqa: S608 - as said above
        f" when created > now() + cast(:at_most as interval) then null"
        f" when unfinished then case when created > now() - cast(:at_most as interval)"
        f" then created - (now() - cast(:at_most as interval)) end"
        f" else created - (now() - cast(:after as interval)) end"
        f" from (select {quote(product.primary_key)} as row_id, {request_id} as request_id,"
        f" {created} as created, coalesce({unfinished or 'false'}, false) as unfinished"
        f" from {qualified(product.table)} where {request_id} = any(cast(:ids as bigint[]))) as one"
        f" where unfinished or created > now() - cast(:after as interval)"
    )
    named: dict[str, object] = {f"u{i}": list(product.unfinished[c]) for i, c in enumerate(columns)}
    named |= {
        "after": min(settle.after, _LONGEST),
        "at_most": min(settle.at_most, _LONGEST),
    }
    found: list[Unsettled] = []
    for begin in range(0, len(request_ids), _AT_ONCE):
        ids = list(request_ids[begin : begin + _AT_ONCE])
        rows = await connection.execute(statement, {"ids": ids, **named})
        found += [Unsettled(*row) for row in rows]
    return found
