"""Detecting that a callback has spoiled the transaction in which it worked.

PostgreSQL answers COMMIT with a rollback, and no error, when a statement of the transaction failed
before; who caught that error would never learn that nothing was kept.
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_WRITE: Final = text("SELECT pg_current_xact_id()")
_WRITES: Final = text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")


async def write(connection: AsyncConnection) -> None:
    """Make `has_written` true of the transaction, before a callback works in it."""
    await connection.execute(_WRITE)


async def has_written(connection: AsyncConnection) -> bool:
    """Say whether the transaction has written anything; false if a fresh one has replaced it.

    Raises:
        DBAPIError: a statement in it failed, so it can only be rolled back.
        InvalidRequestError: it was ended.
    """
    return bool((await connection.execute(_WRITES)).scalar_one())
