"""What must be true before jobs are taken: at the start, and before every window."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_eraser.catalog import Catalog, CatalogError, Finding
from lethe_eraser.check import check
from lethe_eraser.execute.worker import Executor
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.objects import BucketsUnfitError, ObjectStoreUnavailableError
from lethe_runtime.database import DatabaseProbe
from lethe_runtime.health import Readiness
from lethe_runtime.waiting import StoppedError, until_available

FRESH_SECONDS: Final = 3600.0
"""How long a check holds: windows are days apart, so every one of them begins with a new one."""

CHECKED: Final = "catalog"
"""What `/readyz` waits for until the catalog was held to database and S3 at the start."""

AGAIN_SECONDS: Final = 60.0
"""Pause after a check that refused, before the next."""

_log = structlog.get_logger(__name__)


class Preflight:
    """Holds the catalog to the product's database, and knows whether erasing may begin.

    Args:
        engine: the product's database.
        catalog: what it is said to contain.
        metrics: told what nobody claims, and whether the catalog was refused.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        catalog: Catalog,
        metrics: EraserMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine.execution_options(postgresql_readonly=True)
        self._catalog = catalog
        self._metrics = metrics
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._refused = False

    async def check(self) -> Sequence[Finding]:
        """Check now.

        Raises:
            CatalogError: erasing by this catalog would fail.
        """
        try:
            async with self._engine.connect() as connection:
                findings = await check(connection, self._catalog)
        except CatalogError as error:
            self._tell(refused=True)
            _log.error("catalog refused", problems=list(error.problems))
            raise
        self._tell(refused=False)
        by_kind = Counter(finding.kind for finding in findings)
        self._metrics.uncovered(by_kind)
        if findings:
            # Only names of the schema: what the findings say may hold hosts of URLs.
            _log.warning("nobody claims", places=[f"{f.kind} {f.where}" for f in findings])
        return findings

    async def may_begin(self) -> bool:
        """Whether a job may be taken; checks again when the last check is no longer fresh."""
        async with self._asking:
            age = None if self._asked_at is None else self._clock() - self._asked_at
            if age is not None and age < (AGAIN_SECONDS if self._refused else FRESH_SECONDS):
                return not self._refused
            try:
                await self.check()
            except CatalogError:
                return False
            return True

    def _tell(self, *, refused: bool) -> None:
        self._asked_at = self._clock()
        self._refused = refused
        self._metrics.catalog_refused(refused=refused)


class Buckets(Protocol):
    """What is asked of the object store before anything is erased."""

    async def check(self) -> None:
        """Refuse buckets that are not as they must be; raises likewise while S3 is away."""
        ...


class CheckedExecutor:
    """Holds the catalog to database and S3, waiting for both, and only then runs the executor.

    Args:
        executor: takes and runs jobs.
        preflight: holds the catalog to the database.
        buckets: hold themselves to what erasing needs.
        probe: knows whether our own tables are there yet.
        readiness: told while waiting, and of `CHECKED`: who is about to be refused was never ready,
            so that a rolling deployment stops at the first.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        preflight: Preflight,
        buckets: Buckets,
        probe: DatabaseProbe,
        readiness: Readiness,
    ) -> None:
        self._executor = executor
        self._preflight = preflight
        self._buckets = buckets
        self._probe = probe
        self._readiness = readiness

    async def run(self, stop: asyncio.Event) -> None:
        """Erase until `stop`.

        Raises:
            CatalogError: a claimed table or column is missing, or a mask does not fit.
            BucketsUnfitError: S3 would not let a bucket be erased, or not let it be proven.
        """
        try:
            await until_available(
                "database",
                self._check,
                readiness=self._readiness,
                stop=stop,
                transient=self._probe.TRANSIENT,
            )
            await until_available(
                "s3",
                self._check_buckets,
                readiness=self._readiness,
                stop=stop,
                transient=(ObjectStoreUnavailableError,),
            )
        except StoppedError:
            return
        self._readiness.ok(CHECKED)
        await self._executor.run(stop)

    async def _check(self) -> None:
        await self._probe.ask()
        await self._preflight.check()

    async def _check_buckets(self) -> None:
        try:
            await self._buckets.check()
        except BucketsUnfitError as error:
            _log.error("buckets refused", problems=list(error.problems))
            raise
