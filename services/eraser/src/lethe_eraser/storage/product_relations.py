"""What a name of the product's database stands for, what tells its rows apart, what ties them."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

_WANTED: Final = """
    from unnest(:schemas, :names) as wanted(schema_name, table_name)
    join pg_namespace n on n.nspname = wanted.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = wanted.table_name
"""
_NAMES: Final = (
    bindparam("schemas", type_=ARRAY(Text)),
    bindparam("names", type_=ARRAY(Text)),
)

_KINDS = text(
    f"""
    select n.nspname, c.relname, c.relkind::text, above.nspname, root.relname
    {_WANTED}
    left join pg_class root on c.relispartition and root.oid = pg_partition_root(c.oid)
    left join pg_namespace above on above.oid = root.relnamespace
    """
).bindparams(*_NAMES)

# The primary key comes first, then what else tells every row from every other.
_KEYS = text(
    f"""
    select n.nspname, c.relname,
           array(select a.attname::text
                 from unnest(i.indkey::smallint[]) with ordinality as part(attnum, place)
                 join pg_attribute a on a.attrelid = c.oid and a.attnum = part.attnum
                 where place <= i.indnkeyatts order by place) as columns
    {_WANTED}
    join pg_index i on i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
         and i.indpred is null and i.indexprs is null
    where not exists (
        select from unnest(i.indkey::smallint[]) with ordinality as part(attnum, place)
        join pg_attribute a on a.attrelid = c.oid and a.attnum = part.attnum
        where place <= i.indnkeyatts and not a.attnotnull)
    order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
    """  # noqa: S608 - a constant
).bindparams(*_NAMES)

# Foreign keys from both their ends; those of partitions stand at their table, too.
_TIES = text(
    f"""
    select n.nspname, c.relname, k.conrelid = c.oid as points, other_schema.nspname, other.relname,
           array(select a.attname::text from pg_attribute a
                 where a.attrelid = c.oid
                   and a.attnum = any(case when k.conrelid = c.oid then k.conkey else k.confkey end)
                 order by a.attnum)
    {_WANTED}
    join pg_constraint k on k.contype = 'f' and k.conparentid = 0 and c.oid in (k.conrelid, k.confrelid)
    join pg_class other
         on other.oid = case when k.conrelid = c.oid then k.confrelid else k.conrelid end
    join pg_namespace other_schema on other_schema.oid = other.relnamespace
    order by 1, 2, k.conname
    """  # noqa: E501, S608 - a constant
).bindparams(*_NAMES)

_NUMBERED = text(
    f"""
    select a.attname::text
    {_WANTED}
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) like 'nextval(%'
    order by a.attnum
    """
).bindparams(*_NAMES)

_HIDDEN = text(
    f"select n.nspname, c.relname {_WANTED} where row_security_active(c.oid) order by 1, 2"
).bindparams(*_NAMES)

Place = tuple[str, str]
"""Schema and name."""


@dataclass(frozen=True, slots=True)
class Relation:
    """What a name stands for."""

    kind: str
    """PostgreSQL's letter: `r` a table, `p` a partitioned one, `v` a view and so on."""
    partition_of: Place | None
    """The table whose partition it is, at the top."""


@dataclass(frozen=True, slots=True)
class Tie:
    """One end of a foreign key, as seen from a table."""

    columns: frozenset[str]
    points: bool
    """Whether these columns refer to the other table; else it refers to them."""
    other: Place


async def relations(
    connection: AsyncConnection, tables: Collection[Place]
) -> dict[Place, Relation]:
    """Say what those of `tables` are that are anything at all."""
    rows = await connection.execute(_KINDS, _named(tables))
    return {
        (schema, name): Relation(kind, (above, root) if root is not None else None)
        for schema, name, kind, above, root in rows
    }


async def keys(
    connection: AsyncConnection, tables: Collection[Place]
) -> dict[Place, list[tuple[str, ...]]]:
    """Give what tells the rows of each of `tables` apart: the primary key first."""
    found: defaultdict[Place, list[tuple[str, ...]]] = defaultdict(list)
    for schema, name, columns in await connection.execute(_KEYS, _named(tables)):
        found[schema, name].append(tuple(columns))
    return dict(found)


async def ties(connection: AsyncConnection, tables: Collection[Place]) -> dict[Place, list[Tie]]:
    """Give the foreign keys of each of `tables`, and those that refer to it."""
    found: defaultdict[Place, list[Tie]] = defaultdict(list)
    rows = await connection.execute(_TIES, _named(tables))
    for schema, name, points, other_schema, other, columns in rows:
        found[schema, name].append(Tie(frozenset(columns), points, (other_schema, other)))
    return dict(found)


async def hidden(connection: AsyncConnection, tables: Collection[Place]) -> list[Place]:
    """Give those of `tables` of which row-level security may hide rows from us."""
    return [(schema, name) for schema, name in await connection.execute(_HIDDEN, _named(tables))]


async def numbered(connection: AsyncConnection, table: Place) -> list[str]:
    """Give the columns that a sequence fills: no two rows get the same number."""
    return list((await connection.execute(_NUMBERED, _named([table]))).scalars())


def _named(tables: Collection[Place]) -> dict[str, list[str]]:
    wanted = sorted(tables)
    return {"schemas": [schema for schema, _ in wanted], "names": [name for _, name in wanted]}
