"""The servers of a run: one embedded stack of its own, durable, gone at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
from psycopg import sql
from rich.console import Console

from lethe_sandbox.stack import Addresses, EmbeddedStack, Folders, Instance, sweep


@contextmanager
def servers(console: Console, *, logical: bool = False) -> Iterator[Addresses]:
    """Start PostgreSQL, Kafka, Redis and S3, and stop them at the end.

    Args:
        console: told what happens.
        logical: PostgreSQL writes what logical decoding needs (`wal_level`).
    """
    folders = Folders.of_checkout()
    sweep(folders)
    console.print("Starting the servers")
    with EmbeddedStack(folders, Instance.claim_any(folders, "bench"), durable=True) as stack:
        if logical:
            with _admin(stack.addresses) as admin:
                admin.execute("ALTER SYSTEM SET wal_level = 'logical'")
            stack.stop("postgres")
            stack.start("postgres")
        yield stack.addresses


@contextmanager
def database(addresses: Addresses) -> Iterator[str]:
    """Give the name of an empty database, removed at the end."""
    name = f"bench_{uuid4().hex}"
    with _admin(addresses) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield name
    finally:
        with _admin(addresses) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _admin(addresses: Addresses) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(addresses.database_url("postgres", driver=""), autocommit=True)
