"""The servers a benchmark runs on: one embedded stack of its own, gone at the end."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from rich.console import Console

from lethe_sandbox.stack import Addresses, EmbeddedStack, Folders, Instance, sweep


@contextmanager
def servers(console: Console) -> Iterator[Addresses]:
    """Start PostgreSQL, Kafka, Redis and S3, and stop them at the end."""
    folders = Folders.of_checkout()
    sweep(folders)
    console.print("Starting the servers")
    with EmbeddedStack(folders, Instance.claim_any(folders, "bench"), durable=True) as stack:
        yield stack.addresses


def create_database(addresses: Addresses, name: str) -> str:
    """Create an empty database and return its async SQLAlchemy URL."""
    with psycopg.connect(addresses.database_url("postgres", driver=""), autocommit=True) as admin:
        admin.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return addresses.database_url(name)
