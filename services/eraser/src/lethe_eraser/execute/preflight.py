"""What must be true before the first job is taken."""

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_eraser.catalog import Catalog
from lethe_eraser.check import check_schema
from lethe_eraser.execute.worker import Executor
from lethe_runtime.database import DatabaseProbe
from lethe_runtime.health import Readiness
from lethe_runtime.waiting import StoppedError, until_available

_log = structlog.get_logger(__name__)


class CheckedExecutor:
    """Waits for the database, holds the catalog to it, and only then runs the executor.

    Args:
        executor: takes and runs jobs.
        engine: the product's database.
        catalog: what it is said to contain.
        probe: knows whether our own tables are there yet.
        readiness: told while waiting.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        engine: AsyncEngine,
        catalog: Catalog,
        probe: DatabaseProbe,
        readiness: Readiness,
    ) -> None:
        self._executor = executor
        self._engine = engine
        self._catalog = catalog
        self._probe = probe
        self._readiness = readiness

    async def run(self, stop: asyncio.Event) -> None:
        """Erase until `stop`.

        Raises:
            CatalogError: a claimed table or column is missing, or a mask does not fit.
        """
        try:
            await until_available(
                "database",
                self._check,
                readiness=self._readiness,
                stop=stop,
                transient=self._probe.TRANSIENT,
            )
        except StoppedError:
            return
        await self._executor.run(stop)

    async def _check(self) -> None:
        await self._probe.ask()
        async with self._engine.connect() as connection:
            unclaimed = await check_schema(connection, self._catalog)
        if unclaimed:
            _log.warning("columns nobody claims", columns=list(unclaimed))
