"""What the product's tables look like, asked of the database's own catalog."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, Integer, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS = text(
    """
    select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod) as type_name,
           a.attnotnull, a.attgenerated <> '' as generated,
           format_type(base.oid, null) as base_type, base.typcategory,
           has_column_privilege(c.oid, a.attnum, 'select') as readable,
           has_column_privilege(c.oid, a.attnum, 'update') as writable
    from unnest(:schemas, :names) as wanted(schema_name, table_name)
    join pg_namespace n on n.nspname = wanted.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = wanted.table_name
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type base on base.oid = pg_basetype(a.atttypid)
    where c.relkind in ('r', 'p')
    order by a.attnum
    """
).bindparams(bindparam("schemas", type_=ARRAY(Text)), bindparam("names", type_=ARRAY(Text)))

# Partitions are their parent's, and no product table lies in a schema of the system or in ours.
_WITH_COLUMN = text(
    """
    select n.nspname, c.relname, a.attname,
           exists (
               select from pg_index i
               where i.indrelid = c.oid and i.indisvalid and i.indpred is null
                 and i.indkey[0] = a.attnum
           ) and a.atttypid in ('text'::regtype, 'varchar'::regtype)
             and has_table_privilege(c.oid, 'select') and not row_security_active(c.oid) as askable
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'p', 'm', 'f') and not c.relispartition
      and n.nspname not in ('information_schema', :ours) and n.nspname !~ '^pg_'
      and a.attname = any(:names)
    order by 1, 2, 3
    """
).bindparams(bindparam("names", type_=ARRAY(Text)))

_CHECKS = text(
    """
    select n.nspname, c.relname, k.conname, pg_get_expr(k.conbin, k.conrelid),
           array(select a.attname::text from pg_attribute a
                 where a.attrelid = c.oid and a.attnum = any(k.conkey))
    from unnest(:schemas, :names) as wanted(schema_name, table_name)
    join pg_namespace n on n.nspname = wanted.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = wanted.table_name
    join pg_constraint k on k.conrelid = c.oid and k.contype = 'c'
    order by 1, 2, 3
    """
).bindparams(bindparam("schemas", type_=ARRAY(Text)), bindparam("names", type_=ARRAY(Text)))

_UNIQUE = text(
    """
    select n.nspname, c.relname, x.relname,
           array(select a.attname::text from pg_attribute a
                 where a.attrelid = c.oid and a.attnum = any(i.indkey::smallint[]))
    from unnest(:schemas, :names) as wanted(schema_name, table_name)
    join pg_namespace n on n.nspname = wanted.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = wanted.table_name
    join pg_index i on i.indrelid = c.oid and i.indisunique and i.indexprs is null
    join pg_class x on x.oid = i.indexrelid
    order by 1, 2, 3
    """
).bindparams(bindparam("schemas", type_=ARRAY(Text)), bindparam("names", type_=ARRAY(Text)))

_BEYOND = text(
    """
    select wanted.number, a.attname
    from unnest(:schemas, :names, :numbers) as wanted(schema_name, table_name, number)
    join pg_namespace n on n.nspname = wanted.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = wanted.table_name
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'p')
      and not exists (
          select from unnest(:claimed_numbers, :claimed_columns) as claimed(number, column_name)
          where claimed.number = wanted.number and claimed.column_name = a.attname
      )
    order by 1, 2
    """
).bindparams(
    bindparam("schemas", type_=ARRAY(Text)),
    bindparam("names", type_=ARRAY(Text)),
    bindparam("numbers", type_=ARRAY(Integer)),
    bindparam("claimed_numbers", type_=ARRAY(Integer)),
    bindparam("claimed_columns", type_=ARRAY(Text)),
)

# A NULL that is no value of a domain is none in an array of it, of which it can be asked.
_REJECTED = text(
    """
    select ordinality - 1
    from unnest(:texts, :types) with ordinality as mask(text, type_name, ordinality)
    where not case when mask.text is null then pg_input_is_valid('{NULL}', mask.type_name || '[]')
                   else pg_input_is_valid(mask.text, mask.type_name) end
    order by 1
    """
).bindparams(bindparam("texts", type_=ARRAY(Text)), bindparam("types", type_=ARRAY(Text)))


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A column as it stands in the database."""

    type_name: str
    not_null: bool
    generated: bool
    base_type: str
    """The type without its modifier, a domain's being that which it is made of."""
    category: str
    """PostgreSQL's category of the base type: `A` array, `S` string, `N` number and so on."""
    readable: bool
    writable: bool
    """Whether our role may select and update it."""


TableColumns = Mapping[str, LiveColumn]


@dataclass(frozen=True, slots=True)
class NamedColumn:
    """A column found by its name."""

    schema: str
    table: str
    column: str
    askable: bool
    """Whether it is text that we may read and an index begins with it: asking is cheap."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A CHECK, or a unique index (whose `expression` is empty), and the columns it is about."""

    name: str
    expression: str
    columns: frozenset[str]


async def columns_named(
    connection: AsyncConnection, names: Collection[str], *, without_schema: str
) -> list[NamedColumn]:
    """Find every column of the database that has one of `names`; partitions are not listed."""
    rows = await connection.execute(_WITH_COLUMN, {"names": sorted(names), "ours": without_schema})
    return [NamedColumn(*row) for row in rows]


async def tables_like(connection: AsyncConnection, schema: str) -> list[str]:
    """Name the tables of a schema."""
    rows = await connection.execute(
        text(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = :schema and c.relkind in ('r', 'p') and not c.relispartition"
            " order by 1"
        ),
        {"schema": schema},
    )
    return list(rows.scalars())


async def constraints(
    connection: AsyncConnection, tables: Collection[tuple[str, str]]
) -> dict[tuple[str, str], list[Constraint]]:
    """Give the CHECKs and unique indexes of those of `tables` (schema, name) that exist."""
    wanted = sorted(tables)
    named = {"schemas": [s for s, _ in wanted], "names": [n for _, n in wanted]}
    found: defaultdict[tuple[str, str], list[Constraint]] = defaultdict(list)
    for schema, table, name, expression, columns in await connection.execute(_CHECKS, named):
        found[schema, table].append(Constraint(name, expression, frozenset(columns)))
    for schema, table, name, columns in await connection.execute(_UNIQUE, named):
        found[schema, table].append(Constraint(name, "", frozenset(columns)))
    return dict(found)


async def describe(
    connection: AsyncConnection, tables: Collection[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, LiveColumn]]:
    """Describe those of `tables` (schema, name) that exist, in one statement."""
    wanted = sorted(tables)
    rows = await connection.execute(
        _COLUMNS, {"schemas": [s for s, _ in wanted], "names": [n for _, n in wanted]}
    )
    found: dict[tuple[str, str], dict[str, LiveColumn]] = {}
    for schema, name, column, *properties in rows:
        found.setdefault((schema, name), {})[column] = LiveColumn(*properties)
    return found


async def columns_beyond(
    connection: AsyncConnection, claimed: Mapping[tuple[str, str], Collection[str]]
) -> dict[tuple[str, str], list[str]]:
    """Give the columns that tables (schema, name) have beyond those that are claimed."""
    tables = sorted(claimed)
    columns = [(number, name) for number, of in enumerate(tables) for name in claimed[of]]
    rows = await connection.execute(
        _BEYOND,
        {
            "schemas": [schema for schema, _ in tables],
            "names": [name for _, name in tables],
            "numbers": list(range(len(tables))),
            "claimed_numbers": [number for number, _ in columns],
            "claimed_columns": [name for _, name in columns],
        },
    )
    beyond: dict[tuple[str, str], list[str]] = {}
    for number, column in rows:
        beyond.setdefault(tables[number], []).append(column)
    return beyond


async def rejected_masks(
    connection: AsyncConnection, masks: Sequence[tuple[str, str | None, str]]
) -> list[tuple[str, str | None, str]]:
    """Give those of `masks` (column, text, type) whose text, or NULL, is no value of the type."""
    if not masks:
        return []
    rows = await connection.execute(
        _REJECTED, {"texts": [t for _, t, _ in masks], "types": [t for _, _, t in masks]}
    )
    return [masks[index] for (index,) in rows]


async def rewritten_masks(
    connection: AsyncConnection, masks: Sequence[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    """Give (column, text, text as stored) of those of `masks` that are stored as another text.

    Each is (column, text, type), its text a value of the type.
    """
    kinds = sorted({(mask, type_name) for _, mask, type_name in masks})
    if not kinds:
        return []
    # Types are the database's own words.
    stored = ", ".join(
        f"cast(cast(:m{i} as {type_name}) as text)" for i, (_, type_name) in enumerate(kinds)
    )
    row = await connection.execute(
        text(f"select {stored}"),
        {f"m{i}": mask for i, (mask, _) in enumerate(kinds)},
    )
    becomes = dict(zip(kinds, row.one(), strict=True))
    return [
        (column, mask, becomes[mask, type_name])
        for column, mask, type_name in masks
        if becomes[mask, type_name] != mask
    ]
