"""API keys as they are kept: a digest and never the key. All SQL of this library.

A key's secret is 256 random bits, so one SHA-256 is enough: there is nothing to guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import (
    ARRAY,
    Column,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    RowMapping,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable

from lethe_runtime.database import SCHEMA

TABLE_NAME: Final = "api_key"


def api_key_table(metadata: MetaData, schema: str | None = SCHEMA) -> Table:
    """Describe the table of API keys in `metadata`; a service's migration creates it from this."""
    return Table(
        TABLE_NAME,
        metadata,
        Column("key_id", Text, primary_key=True),
        Column("team", Text, nullable=False),
        Column("secret_hash", LargeBinary, nullable=False),
        Column("scopes", ARRAY(Text), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("revoked_at", DateTime(timezone=True)),
        schema=schema,
    )


class Operations(Protocol):
    """What is needed of Alembic's `op`."""

    def execute(self, sqltext: CreateTable, /) -> None:
        """Execute one statement."""


def create_api_key_table(op: Operations, schema: str | None = SCHEMA) -> None:
    """Create the table of API keys, for a service's migration (`op` is Alembic's)."""
    op.execute(CreateTable(api_key_table(MetaData(), schema)))


_TABLE: Final = api_key_table(MetaData())


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key as it is kept."""

    key_id: str
    team: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


async def find(connection: AsyncConnection, key_id: str) -> StoredKey | None:
    """Look up one key that is not revoked."""
    query = select(_TABLE).where(_TABLE.c.key_id == key_id, _TABLE.c.revoked_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return _stored(row) if row else None


def add(
    connection: Connection, *, key_id: str, team: str, secret_hash: bytes, scopes: Sequence[str]
) -> None:
    """Keep a new key."""
    connection.execute(
        insert(_TABLE).values(
            key_id=key_id, team=team, secret_hash=secret_hash, scopes=list(scopes)
        )
    )


def everything(connection: Connection) -> list[StoredKey]:
    """List every key, revoked ones too, oldest first."""
    rows = connection.execute(select(_TABLE).order_by(_TABLE.c.created_at, _TABLE.c.key_id))
    return [_stored(row) for row in rows.mappings()]


def revoke(connection: Connection, key_id: str) -> bool:
    """Revoke a key for good; says whether there was such a key that was not revoked yet."""
    done = connection.execute(
        update(_TABLE)
        .where(_TABLE.c.key_id == key_id, _TABLE.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    return bool(done.rowcount)


def _stored(row: RowMapping) -> StoredKey:
    return StoredKey(**{**row, "scopes": tuple(row["scopes"])})
