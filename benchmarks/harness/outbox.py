"""An outbox database for one case, and a backlog in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import sql
from sqlalchemy import create_engine

from benchmarks.harness.records import HEADERS, KEY_SQL, KEYS, TRACEPARENT, VALUE_SQL
from benchmarks.harness.servers import database
from lethe_outbox import Status, bucket_of
from lethe_outbox.migrations import create_inbox, create_outbox, create_outbox_upkeep
from lethe_sandbox.stack import Addresses

BUSINESS = "CREATE TABLE business (id bigserial PRIMARY KEY, v int NOT NULL)"
"""The table of whoever appends."""


@dataclass(frozen=True, slots=True)
class OutboxDatabase:
    """A database with nothing but an empty outbox."""

    url: str
    """For SQLAlchemy."""
    plain_url: str

    def connect(self) -> psycopg.Connection[tuple[int, ...]]:
        """Open an autocommitting connection."""
        return psycopg.connect(self.plain_url, autocommit=True)

    def hot_share(self) -> float:
        """Give the share of updates of the outbox that touched no index."""
        with self.connect() as connection:
            found = connection.execute(
                "SELECT sum(n_tup_hot_upd), sum(n_tup_upd) FROM pg_stat_user_tables"
                " WHERE relname LIKE 'outbox\\_20%' OR relname = 'outbox_default'"
            ).fetchone()
        hot, updated = found or (0, 0)
        return float(hot / updated) if updated else 0.0

    def pending(self) -> int:
        """Count what is not marked as sent."""
        with self.connect() as connection:
            found = connection.execute(
                "SELECT count(*) FROM lethe.outbox WHERE status <> %s", (Status.SENT,)
            ).fetchone()
        return found[0] if found else 0


@contextmanager
def outbox(addresses: Addresses) -> Iterator[OutboxDatabase]:
    """Give an outbox of its own, removed at the end."""
    with database(addresses) as name:
        engine = create_engine(addresses.database_url(name))
        with engine.begin() as connection:
            operations = Operations(MigrationContext.configure(connection))
            create_outbox(operations)
            create_outbox_upkeep(operations)
            create_inbox(operations)
        engine.dispose()
        yield OutboxDatabase(addresses.database_url(name), addresses.database_url(name, driver=""))


def write(
    connection: psycopg.Connection[tuple[int, ...]],
    topic: str,
    rows: int,
    *,
    status: Status = Status.PENDING,
    first: int = 0,
) -> None:
    """Insert `rows` rows in the transaction of `connection`, the keys in turn."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS keys (key text PRIMARY KEY, bucket int2)")
    connection.execute("TRUNCATE keys")
    with connection.cursor().copy("COPY keys FROM STDIN") as copy:
        for n in range(KEYS):
            copy.write_row((f"k{n}", bucket_of(f"k{n}")))
    connection.execute(
        sql.SQL(
            "INSERT INTO lethe.outbox (event_id, topic, key, bucket, payload, headers, status) "
            f"SELECT uuidv7(), {{topic}}, key, bucket, {VALUE_SQL}, {{headers}}, {{status}} "
            f"FROM generate_series({{first}}, {{last}}) g JOIN keys ON key = {KEY_SQL} ORDER BY g"
        ).format(
            topic=sql.Literal(topic),
            headers=sql.Literal(HEADERS[0][0].encode() + b"\0" + TRACEPARENT),
            status=sql.Literal(int(status)),
            first=sql.Literal(first),
            last=sql.Literal(first + rows - 1),
        )
    )


def publish_before(connection: psycopg.Connection[tuple[int, ...]], topic: str, rows: int) -> None:
    """Leave `rows` sent rows behind, as relays that published them would have left them."""
    write(connection, topic, rows, status=Status.SENT)
    connection.execute(
        "UPDATE lethe.outbox_bucket SET low_water = (SELECT max(id) FROM lethe.outbox)"
    )
    connection.execute("VACUUM ANALYZE lethe.outbox")
