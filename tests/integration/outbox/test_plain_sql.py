"""The exported SQL makes what the Alembic helpers make, in a schema of any name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import sql
from sqlalchemy import Connection, create_engine, make_url, text

from lethe_outbox import Message, Outbox, migrations
from lethe_outbox.migrations import PARTS
from lethe_outbox.plain_sql import ALL_PARTS, schema_sql

ODD = """Odd "schema": 100% 'Größe' {0} \\x"""

DESCRIPTION = """
with relations as (
    select c.oid, c.relname, c.relkind, c.reloptions, c.relpartbound from pg_class c
    join pg_namespace n on n.oid = c.relnamespace where n.nspname = %(schema)s
)
select 'relation', relname, relkind::text, array_to_string(reloptions, ' '),
    pg_get_expr(relpartbound, oid) from relations
union all
select 'column', r.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull || a.attidentity, pg_get_expr(d.adbin, d.adrelid)
from relations r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where r.relkind in ('r', 'p')
union all
select 'constraint', conname, r.relname, pg_get_constraintdef(c.oid), null
from relations r join pg_constraint c on c.conrelid = r.oid
union all
select 'index', r.relname, pg_get_indexdef(i.indexrelid), null, null
from relations r join pg_index i on i.indexrelid = r.oid
union all
select 'sequence', r.relname, s.seqcache::text, s.seqincrement::text, s.seqcycle::text
from relations r join pg_sequence s on s.seqrelid = r.oid
order by 1, 2, 3, 4
"""
SEEDED = ("outbox_bucket", "outbox_upkeep")


def described(connection: psycopg.Connection[Any], schema: str) -> list[Any]:
    """Everything in a schema, and the rows that are there from the beginning."""
    found: list[Any] = connection.execute(DESCRIPTION, {"schema": schema}).fetchall()
    tables = {row[1] for row in found if row[0] == "relation"}
    for table in sorted(tables & {*SEEDED}):
        first = sql.SQL("select array_agg(t.* order by 1)::text from (select {} from {}) t").format(
            sql.Identifier("bucket" if table == "outbox_bucket" else "task"),
            sql.Identifier(schema, table),
        )
        found += connection.execute(first).fetchall()
    return found


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(False)


@contextmanager
def operations(url: str) -> Iterator[tuple[Connection, Operations]]:
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection, Operations(MigrationContext.configure(connection))
    engine.dispose()


def by_helpers(url: str, schema: str) -> list[Any]:
    with operations(url) as (_, op):
        for steps in PARTS.values():
            for create in steps:
                create(op, schema)
    with psycopg.connect(plain(url)) as connection:
        found = described(connection, schema)
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
    return found


@pytest.mark.parametrize("schema", ["lethe", ODD], ids=["plain", "odd"])
def test_the_export_makes_what_the_helpers_make(database_url: str, schema: str) -> None:
    expected = by_helpers(database_url, schema)
    assert len(expected) > 100
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute(schema_sql(schema))
        assert described(connection, schema) == expected
    engine = create_engine(database_url)
    with engine.begin() as transaction:
        Outbox(schema).append(transaction, Message("orders", "customer-7", b"1"))
    engine.dispose()


def test_without_a_schema_the_search_path_decides(database_url: str) -> None:
    expected = by_helpers(database_url, "elsewhere")
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute("create schema elsewhere")
        connection.execute("set search_path = elsewhere")
        connection.execute(schema_sql(None))
        connection.execute("set search_path = public")
        assert described(connection, "elsewhere") == expected


@pytest.mark.parametrize("part", ALL_PARTS)
def test_a_part_alone_is_that_part(database_url: str, part: str) -> None:
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute(schema_sql("lethe", [part]))
        made = {row[1] for row in described(connection, "lethe") if row[0] == "relation"}
    prefix = {"outbox": "outbox", "inbox": "inbox", "dead-letter": "dead_letter"}[part]
    assert made
    assert {name for name in made if not name.startswith(prefix)} == set()


def test_every_helper_is_exported() -> None:
    helpers = {name for name in vars(migrations) if name.startswith("create_")}
    exported = {step.__name__ for steps in PARTS.values() for step in steps}
    assert exported == helpers


def test_what_was_created_can_be_dropped(database_url: str) -> None:
    drops: list[Callable[..., None]] = [
        getattr(migrations, step.__name__.replace("create_", "drop_"))
        for steps in reversed([*PARTS.values()])
        for step in reversed(steps)
    ]
    with operations(database_url) as (connection, op):
        for steps in PARTS.values():
            for create in steps:
                create(op, ODD)
        for drop in drops:
            drop(op, ODD)
        left = connection.scalar(
            text("select count(*) from pg_class where relnamespace = to_regnamespace(:name)"),
            {"name": f'"{ODD.replace(chr(34), chr(34) * 2)}"'},
        )
    assert left == 0
