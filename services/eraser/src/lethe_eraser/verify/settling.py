"""Whether the product may still write to a person's rows: then it is too early to say anything."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog
from lethe_eraser.storage.leftovers import unsettled
from lethe_eraser.storage.progress import Blocked

SHORTEST: Final = timedelta(seconds=1)
LONGEST: Final = timedelta(minutes=5)
"""Bounds of the pause before it is looked at again."""


@dataclass(frozen=True, slots=True)
class Settling:
    """What is not settled yet."""

    again_in: timedelta | None
    """When to look again; None if nothing is waited for."""
    overdue: tuple[Blocked, ...]
    """Requests that are unfinished for longer than is waited, or dated further in the future."""


async def settling(
    connection: AsyncConnection, catalog: Catalog, requests: Mapping[str, Collection[int]]
) -> Settling:
    """Look at the rows of `requests` by the catalog's `settle` and `unfinished`."""
    waits: list[timedelta] = []
    overdue: list[Blocked] = []
    for request_type, ids in sorted(requests.items()):
        for table in catalog.features[request_type].tables:
            for row in await unsettled(connection, table, sorted(ids), catalog.settle):
                if row.waits_for is not None:
                    waits.append(row.waits_for)
                    continue
                blocked = Blocked(
                    kind=table.kind,
                    table=str(table.table),
                    row_key=str(row.row_id),
                    request_type=request_type,
                    request_id=row.request_id,
                    reason=BlockReason.STILL_WRITING,
                )
                overdue.append(blocked)
    again = min(max(*waits, SHORTEST), LONGEST) if waits else None
    return Settling(again, tuple(overdue))
