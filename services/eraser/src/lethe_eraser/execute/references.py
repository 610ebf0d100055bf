"""Whether anybody else still names an object that goes with the last reference to it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_eraser.catalog import LookUp
from lethe_eraser.domain import Job, ObjectRef, RowTarget
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.storage.look_ups import lock_objects, referenced


class References:
    """Counts references by the catalog's look-ups.

    Args:
        look_ups: where objects may be named.
    """

    def __init__(self, look_ups: Iterable[LookUp]) -> None:
        self._look_ups = tuple(look_ups)

    async def let_go(
        self,
        connection: AsyncConnection,
        journal: Journal,
        job: Job,
        intent: Intent,
        masked: Sequence[RowTarget],
    ) -> tuple[Job, frozenset[ObjectRef]]:
        """Commit to deleting the objects of `masked` that no row names any more.

        Runs after the rows were masked and under the objects' locks: of two people who let go of
        one object at the same moment, the later counts after the earlier committed.

        Returns:
            The job, and those of the objects that stay because somebody names them.
        """
        refs = list(dict.fromkeys(ref for row in masked for ref in row.unless_referenced))
        if not refs:
            return job, frozenset()
        await lock_objects(connection, refs)
        named = await referenced(connection, self._look_ups, refs)
        free = frozenset(refs) - named
        for part in intent.found:
            of_type = dict.fromkeys(ref for row in part.rows for ref in row.unless_referenced)
            if mine := tuple(ref for ref in of_type if ref in free):
                free -= frozenset(mine)
                job = replace(job, batches=job.batches + 1)
                pending = Intent.of_objects(
                    job.batches, part.request_type, mine, if_unreferenced=True
                )
                await journal.write(connection, job.job_id, job.round, pending)
        return job, named

    async def without_referenced(self, engine: AsyncEngine, intent: Intent) -> Intent:
        """Take out of an intent what was named again since it was committed."""
        async with engine.connect() as connection:
            named = await referenced(connection, self._look_ups, intent.objects)
        return intent.naming(frozenset(intent.objects) - named)


NOBODY_ELSE: Final = References(())
"""For catalogs in which no object is shared by rows."""
