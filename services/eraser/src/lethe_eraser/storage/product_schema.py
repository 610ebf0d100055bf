"""What the product's tables look like, asked of the database's own catalog."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS = text(
    """
    select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod) as type_name,
           a.attnotnull, a.attgenerated <> '' as generated
    from unnest(:schemas, :names) as wanted(schema_name, table_name)
    join pg_namespace n on n.nspname = wanted.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = wanted.table_name
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'p')
    order by a.attnum
    """
).bindparams(bindparam("schemas", type_=ARRAY(Text)), bindparam("names", type_=ARRAY(Text)))

_REJECTED = text(
    """
    select ordinality - 1
    from unnest(:texts, :types) with ordinality as mask(text, type_name, ordinality)
    where not pg_input_is_valid(mask.text, mask.type_name)
    order by 1
    """
).bindparams(bindparam("texts", type_=ARRAY(Text)), bindparam("types", type_=ARRAY(Text)))


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A column as it stands in the database."""

    type_name: str
    not_null: bool
    generated: bool


TableColumns = Mapping[str, LiveColumn]


async def describe(
    connection: AsyncConnection, tables: Collection[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, LiveColumn]]:
    """Describe those of `tables` (schema, name) that exist, in one statement."""
    wanted = sorted(tables)
    rows = await connection.execute(
        _COLUMNS, {"schemas": [s for s, _ in wanted], "names": [n for _, n in wanted]}
    )
    found: dict[tuple[str, str], dict[str, LiveColumn]] = {}
    for schema, name, column, type_name, not_null, generated in rows:
        found.setdefault((schema, name), {})[column] = LiveColumn(type_name, not_null, generated)
    return found


async def rejected_masks(
    connection: AsyncConnection, masks: Sequence[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    """Give those of `masks` (column, text, type) whose text is no value of the type."""
    if not masks:
        return []
    rows = await connection.execute(
        _REJECTED, {"texts": [t for _, t, _ in masks], "types": [t for _, _, t in masks]}
    )
    return [masks[index] for (index,) in rows]
