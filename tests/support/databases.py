"""Databases of a test's own: made empty or as a copy, and dropped whatever still hangs on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import uuid4

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import sql
from sqlalchemy import create_engine

from lethe_sandbox.stack import Addresses

EMPTY: Final = "template1"


def create(addresses: Addresses, template: str = EMPTY) -> str:
    """Make a database as a copy of `template`, which nobody may be using; gives its name."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(addresses.database_url("postgres", driver=""), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return name


def drop(addresses: Addresses, name: str) -> None:
    """Drop a database with all its sessions.

    A session that began to log in and never went on belongs to no database yet, so that FORCE does
    not end it; and while it waits for its client it does not answer the barrier that every drop
    raises, up to `authentication_timeout`. Clients cut off while they connect leave such sessions.
    """
    with psycopg.connect(addresses.database_url("postgres", driver=""), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'starting'"
        )
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def lay(url: str, *steps: Callable[[Operations], object]) -> None:
    """Run steps of a migration in one transaction."""
    engine = create_engine(url)
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        for step in steps:
            step(op)
    engine.dispose()


@contextmanager
def own_database(addresses: Addresses, template: str = EMPTY) -> Iterator[str]:
    """Have a database for the block; gives its async SQLAlchemy URL."""
    name = create(addresses, template)
    yield addresses.database_url(name)
    drop(addresses, name)
