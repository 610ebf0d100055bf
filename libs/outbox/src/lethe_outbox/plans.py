"""Plans for looking at pending rows, whatever the statistics say of the table.

Statistics of the days when the table was empty, or when it had no backlog, let the planner fetch
every pending row of a bucket and sort it, to show the first few: seconds instead of milliseconds.
"""

from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

_SET: Final = text("""
select set_config(name, :value, true)
from unnest(array['enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'jit']) name
""")
_OFF: Final = {"value": "off"}


def guard(connection: Connection) -> None:
    """Read along the index (bucket, id) until the end of this transaction."""
    connection.execute(_SET, _OFF)


def unguard(connection: Connection) -> None:
    """Let the planner choose again, e.g. to read a partition whole."""
    connection.execute(_SET, {"value": "on"})


async def guard_async(connection: AsyncConnection) -> None:
    """Do as `guard` does."""
    await connection.execute(_SET, _OFF)
