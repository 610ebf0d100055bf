"""Tells the CDN what a job removed, and knows when it has forgotten.

Planned once for every batch, under the job's lock, and committed before the CDN hears of it: a
crash at any line ends in the same invalidations, each begun once.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Final, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_eraser.catalog import Catalog, ReferenceRule
from lethe_eraser.domain import Job, JobState, ObjectRef
from lethe_eraser.fence import Fence
from lethe_eraser.objects.cdn import BUSY, CdnError, batches, paths_at
from lethe_eraser.storage.invalidations import Invalidation, Invalidations, Planned
from lethe_eraser.storage.journal import Journal

_log = structlog.get_logger(__name__)

UNKNOWN: Final = -1
"""How many are unfinished when `may_go_on` said no, or nothing may begin."""


class Edges(Protocol):
    """What is asked of the CDN; every method raises `CdnError`."""

    async def create(self, distribution: str, reference: str, paths: tuple[str, ...]) -> str:
        """Begin an invalidation and give its id."""
        ...

    async def is_done(self, distribution: str, invalidation_id: str) -> bool:
        """Whether it is finished."""
        ...


class Invalidator:
    """Brings a job's invalidations forward.

    Args:
        engine: the product's database.
        catalog: which distributions stand before which buckets.
        cdn: is told.
        journal: the objects of the job's batches.
        invalidations: what was planned and told.
        fence: lets something begin with a job.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        catalog: Catalog,
        cdn: Edges,
        journal: Journal,
        invalidations: Invalidations,
        fence: Fence,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._cdn = cdn
        self._journal = journal
        self._invalidations = invalidations
        self._fence = fence

    async def advance(self, job: Job, subject: str, may_go_on: Callable[[], bool]) -> int:
        """Plan, tell and ask; gives how many invalidations are not finished, or `UNKNOWN`.

        A CDN that is away, busy or refuses leaves them unfinished; that raises nothing.
        """
        if not self._catalog.distributions:
            return 0
        if not await self._plan(job, subject, may_go_on):
            return UNKNOWN
        async with self._engine.connect() as connection:
            unfinished = await self._invalidations.unfinished(connection, job.job_id)
        left = 0
        busy: set[str] = set()
        for one in unfinished:
            if not may_go_on():
                return UNKNOWN
            distribution = one.plan.distribution
            if one.invalidation_id is None and distribution in busy:
                left += 1
                continue
            try:
                left += not await self._bring_forward(job, one)
            except CdnError as error:
                left += 1
                if error.code == BUSY:
                    busy.add(distribution)
                else:
                    _log.warning(
                        "cdn invalidation not done", job_id=str(job.job_id), code=error.code
                    )
        return left

    async def _bring_forward(self, job: Job, one: Invalidation) -> bool:
        """Tell the CDN, or ask it; says whether it is finished."""
        distribution, known = one.plan.distribution, one.invalidation_id
        if known is None:
            known = await self._cdn.create(distribution, f"lethe-{one.reference}", one.plan.paths)
            async with self._engine.begin() as connection:
                await self._invalidations.sent(connection, job.job_id, one.number, known)
        if not await self._cdn.is_done(distribution, known):
            return False
        async with self._engine.begin() as connection:
            await self._invalidations.finished(connection, job.job_id, one.number)
        return True

    def _copies(self, ref: ObjectRef) -> Iterator[ObjectRef]:
        """Give the object and its replicas: a distribution may stand before any of them."""
        bucket = self._catalog.buckets.get(ref.bucket)
        for name in (ref.bucket, *(() if bucket is None else bucket.replicas)):
            yield ref._replace(bucket=name)

    async def _plan(self, job: Job, subject: str, may_go_on: Callable[[], bool]) -> bool:
        """Plan for what the batches since the last plan removed; False if nothing may begin."""
        own = own_prefixes(self._catalog, subject)
        paths: dict[str, set[str]] = {}
        async with self._engine.connect() as connection:
            covered = await self._invalidations.covered(connection, job.job_id)
            last = covered
            async for intent in self._journal.all(connection, job.job_id, after=covered):
                if not may_go_on():
                    return False
                failed = set(intent.failed)
                removed = (
                    copy for ref in intent.refs if ref not in failed for copy in self._copies(ref)
                )
                for distribution, some in paths_at(
                    self._catalog.distributions, removed, own
                ).items():
                    paths.setdefault(distribution, set()).update(some)
                last = intent.batch
        if not paths:
            return True
        async with self._engine.begin() as connection:
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.ERASED:
                return False
            # Whoever had the job before may have planned the same.
            if await self._invalidations.covered(connection, job.job_id) == covered:
                plans = (
                    Planned(distribution, batch)
                    for distribution, some in sorted(paths.items())
                    for batch in batches(some)
                )
                await self._invalidations.plan(connection, job.job_id, last, plans)
        return True


def own_prefixes(catalog: Catalog, subject: str) -> Collection[str]:
    """Give the prefixes of keys below which, by the catalog, everything is this person's."""
    return {rule.ownership.prefix(subject) for rule in _rules(catalog) if rule.ownership.under}


def _rules(catalog: Catalog) -> Iterator[ReferenceRule]:
    for feature in catalog.features.values():
        for table in feature.tables:
            for rules in table.references.values():
                yield from (rule for rule in rules if isinstance(rule, ReferenceRule))
    for rules in catalog.reference_sets.values():
        yield from (rule for rule in rules if isinstance(rule, ReferenceRule))
