"""The second scan: nothing of the person is left, or it is known what and why.

It shares no statement with the code that erased: it asks the client tables which requests are the
person's, the product's tables which values are still there, and S3 which objects of the journal
remain. Then one transaction counts the rows again, masks the client rows that the scan covered,
forgets the person and says so.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_contracts.events import TypeTotals
from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog, TableName
from lethe_eraser.check import unclaimed_tables
from lethe_eraser.domain import (
    MAX_ROUNDS,
    Job,
    JobState,
    RowKind,
    add,
    say,
    with_blocked,
)
from lethe_eraser.fence import Fence
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.storage import invalidations, jobs, leftovers, progress
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.storage.product import PrimaryKey, mask_client_rows
from lethe_eraser.storage.product_sample import holds_rows_of
from lethe_eraser.storage.progress import OBJECTS_ONLY, Blocked, Page
from lethe_eraser.verify.invalidate import UNKNOWN, Invalidator
from lethe_eraser.verify.objects import Store, objects_left
from lethe_eraser.verify.settling import settling

AGAIN_AFTER: Final = timedelta(seconds=5)
"""Pause before the round that follows a scan which found something."""

EDGES_AGAIN: Final = timedelta(minutes=1)
"""Pause before the CDN is asked again; an invalidation takes some minutes."""

SCHEDULED_AGAIN: Final = timedelta(hours=1)
"""Pause before scheduled objects are looked for again; lifecycle rules run once a day."""

_log = structlog.get_logger(__name__)

ClientKey = tuple[str, PrimaryKey]
"""A client row: its source and primary key."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """A row in which something of the person is left."""

    kind: RowKind
    table: str
    row_id: int
    request_type: str
    request_id: int


@dataclass(slots=True)
class Rows:
    """What the database says of a person: client rows by source and type, and what is left."""

    claims: dict[str, defaultdict[str, list[PrimaryKey]]] = field(default_factory=dict)
    """Client rows to be masked: no blocked request among them."""
    survivors: list[Survivor] = field(default_factory=list)
    unclaimed: list[Blocked] = field(default_factory=list)
    """Client rows of unknown types that no round has seen."""
    requests: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Ids of all requests, by type."""

    def keys(self) -> set[ClientKey]:
        """Every client row to be masked."""
        return {
            (source, key)
            for source, by_type in self.claims.items()
            for keys in by_type.values()
            for key in keys
        }


@dataclass(frozen=True, slots=True)
class Scan:
    """All that the scan found."""

    rows: Rows
    objects: tuple[Intent, ...]
    """Objects that were deleted and are there, each under the batch that deleted it."""
    scheduled: int = 0
    """Objects that wait for their lifecycle rule."""
    at_edges: int = 0
    """Invalidations that the CDN has not finished."""


class Verification:
    """Verifies a job that is erased.

    Args:
        engine: the product's database.
        catalog: which tables and columns there are, and what masked values look like.
        objects: lists objects.
        journal: the intents of the job's batches.
        announcer: appends events.
        fence: lets something begin with a job.
        metrics: counts what was committed.
        invalidator: tells the CDN; None if there is none.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        catalog: Catalog,
        objects: Store,
        journal: Journal,
        announcer: Announcer,
        fence: Fence,
        metrics: EraserMetrics,
        invalidator: Invalidator | None = None,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._objects = objects
        self._journal = journal
        self._announcer = announcer
        self._fence = fence
        self._metrics = metrics
        self._invalidator = invalidator

    async def run(self, job: Job, subject: str, may_go_on: Callable[[], bool]) -> Job | None:
        """Scan, and conclude: verified, blocked, or back to another round.

        Returns:
            The job; unchanged if `may_go_on` said no; None if a hold stopped it.
        """
        scan = await self.scan(job, subject, may_go_on)
        if scan is None:
            return job
        return await self.conclude(job, subject, scan)

    async def scan(self, job: Job, subject: str, may_go_on: Callable[[], bool]) -> Scan | None:
        """Read what is left, in no transaction; None if `may_go_on` said no."""
        at_edges = 0
        if self._invalidator is not None:
            at_edges = await self._invalidator.advance(job, subject, may_go_on)
        if at_edges == UNKNOWN:
            return None
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            left = await objects_left(
                connection, self._journal, self._objects, job.job_id, may_go_on
            )
        if left is None:
            return None
        async with self._engine.connect() as connection:
            rows = await self._rows(connection, job, subject)
        return Scan(rows, left.found, left.scheduled, at_edges)

    async def conclude(self, job: Job, subject: str, scan: Scan) -> Job | None:
        """Count again and end the job in one transaction, or send it round again."""
        async with self._engine.begin() as connection:
            await jobs.limit_lock_waits(connection)
            locked = await self._fence.begin(connection, job)
            if locked is None or locked.state is not JobState.ERASED:
                return None
            if await self._journal.has_pending(connection, job.job_id):
                return await self._again(connection, locked, scan)
            rows = await self._rows(connection, locked, subject)
            unsettled = await settling(connection, self._catalog, rows.requests)
            if unsettled.again_in is not None:
                # Neither a round is spent nor anybody blocked for what is still being written.
                await jobs.write(connection, locked, retry_in=unsettled.again_in)
                return locked
            if unsettled.overdue:
                await progress.record_blocked(
                    connection, job.job_id, locked.round, None, unsettled.overdue
                )
                rows = await self._rows(connection, locked, subject)
            late = rows.keys() - scan.rows.keys()
            if rows.survivors or rows.unclaimed or late or scan.objects:
                if locked.round < MAX_ROUNDS:
                    return await self._again(connection, locked, scan)
                await self._give_up(connection, locked, scan, rows, late)
                rows = await self._rows(connection, locked, subject)
            if scan.scheduled or scan.at_edges:
                return await self._wait(connection, locked, scan)
            ended, masked = await self._end(connection, locked, subject, scan, rows)
        for request_type, count in masked.items():
            self._metrics.rows("client", request_type, count)
        _log.info(
            "job ended",
            job_id=str(job.job_id),
            subject_ref=job.subject_ref,
            state=ended.state,
            rounds=ended.round,
        )
        return ended

    async def _rows(self, connection: AsyncConnection, job: Job, subject: str) -> Rows:
        blocked = await progress.blocked(connection, job.job_id)
        requests_blocked = {
            (row.request_type, row.request_id) for row in blocked if row.kind in {"feature", "task"}
        }
        known = {(row.table, row.row_key) for row in blocked}
        rows = Rows()
        wanted: defaultdict[str, set[int]] = defaultdict(set)
        for source in self._catalog.client_tables:
            by_type = rows.claims.setdefault(source.name, defaultdict(list))
            async for claim in leftovers.claims(connection, source, subject):
                if claim.request_type not in self._catalog.features:
                    row = _client_row(str(source.table), claim)
                    if (row.table, row.row_key) not in known:
                        rows.unclaimed.append(row)
                    continue
                if claim.request_id is not None:
                    wanted[claim.request_type].add(claim.request_id)
                if (claim.request_type, claim.request_id) not in requests_blocked:
                    by_type[claim.request_type].append(claim.primary_key)
        rows.requests = wanted
        for request_type, ids in sorted(wanted.items()):
            for table in self._catalog.features[request_type].tables:
                name = str(table.table)
                rows.survivors += [
                    Survivor(table.kind, name, row_id, request_type, request_id)
                    for row_id, request_id in await leftovers.survivors(
                        connection, table, sorted(ids)
                    )
                    if (name, str(row_id)) not in known
                ]
        return rows

    async def _again(self, connection: AsyncConnection, job: Job, scan: Scan) -> Job:
        """Another round finds late rows by itself; objects that came back are given to it."""
        again = job.to(JobState.RUNNING)
        again = replace(again, round=again.round + 1)
        for found in scan.objects:
            again = replace(again, batches=again.batches + 1)
            intent = Intent(
                batch=again.batches,
                page=Page(found.page.request_type, OBJECTS_ONLY),
                objects=found.objects,
                if_unreferenced=found.if_unreferenced,
            )
            await self._journal.write(connection, job.job_id, again.round, intent)
        again, said = say(again, again.snapshot())
        await jobs.write(connection, again, retry_in=AGAIN_AFTER)
        await self._announcer.announce(connection, [said])
        _log.warning(
            "verification found something left",
            job_id=str(job.job_id),
            subject_ref=job.subject_ref,
            rows=len(scan.rows.survivors),
            objects=sum(len(found.objects) for found in scan.objects),
        )
        return again

    async def _wait(self, connection: AsyncConnection, job: Job, scan: Scan) -> Job:
        """Look again later: what is left goes by itself."""
        pause = SCHEDULED_AGAIN if scan.scheduled else EDGES_AGAIN
        await jobs.write(connection, job, retry_in=pause)
        _log.info(
            "job waits",
            job_id=str(job.job_id),
            subject_ref=job.subject_ref,
            scheduled=scan.scheduled,
            invalidations=scan.at_edges,
        )
        return job

    async def _give_up(
        self, connection: AsyncConnection, job: Job, scan: Scan, rows: Rows, late: set[ClientKey]
    ) -> None:
        """After the last round, what is still left is blocked by name."""
        left = [*rows.unclaimed, *self._blocked_claims(rows, late)]
        left += [
            Blocked(
                kind=row.kind,
                table=row.table,
                row_key=str(row.row_id),
                request_type=row.request_type,
                request_id=row.request_id,
                reason=BlockReason.STILL_WRITING,
            )
            for row in rows.survivors
        ]
        await progress.record_blocked(connection, job.job_id, job.round, None, left)
        for found in scan.objects:
            objects = [
                progress.blocked_object(job.job_id, found.page.request_type, ref)
                for ref in found.objects
            ]
            await progress.record_blocked(connection, job.job_id, job.round, found.batch, objects)

    def _blocked_claims(self, rows: Rows, late: set[ClientKey]) -> Iterator[Blocked]:
        tables = {source.name: str(source.table) for source in self._catalog.client_tables}
        for source, by_type in rows.claims.items():
            for request_type, keys in by_type.items():
                for key in keys:
                    if (source, key) in late:
                        yield _client_row(
                            tables[source],
                            leftovers.Claim(key, request_type, None),
                            BlockReason.STILL_WRITING,
                        )

    async def _end(
        self, connection: AsyncConnection, job: Job, subject: str, scan: Scan, rows: Rows
    ) -> tuple[Job, Mapping[str, int]]:
        await self._record_uncovered(connection, job, subject)
        masked = await self._mask_client_rows(connection, scan, rows)
        totals = dict(job.totals)
        for request_type, count in masked.items():
            totals = add(totals, request_type, TypeTotals(client_rows=count))
        by_type = await progress.blocked_by_type(connection, job.job_id)
        totals = with_blocked(totals, by_type, final=True)
        reasons = await progress.blocked_by_reason(connection, job.job_id)
        until = await progress.locked_until(connection, job.job_id)
        ended = replace(job, totals=totals, reasons=reasons, locked_until=until)
        ended = ended.to(JobState.BLOCKED if reasons else JobState.VERIFIED)
        ended, said = say(ended, ended.snapshot())
        await self._journal.purge(connection, job.job_id)
        await invalidations.purge(connection, job.job_id)
        if ended.state is JobState.VERIFIED:
            await progress.purge(connection, job.job_id)
        await jobs.write(connection, ended)
        await self._announcer.announce(connection, [said])
        return ended, masked

    async def _record_uncovered(self, connection: AsyncConnection, job: Job, subject: str) -> None:
        """Block the job for every table with a client key that nobody claims and that has theirs.

        A table that cannot be asked by an index is not searched: the job meets it all the same.
        """
        met = [
            Blocked(
                kind="client",
                table=f"{one.schema}.{one.table}",
                row_key=one.column,
                request_type=one.table,
                request_id=None,
                reason=BlockReason.UNCOVERED,
            )
            for one in await unclaimed_tables(connection, self._catalog)
            if not one.askable
            or await holds_rows_of(
                connection, TableName(one.schema, one.table), one.column, subject
            )
        ]
        await progress.record_blocked(connection, job.job_id, job.round, None, met)

    async def _mask_client_rows(
        self, connection: AsyncConnection, scan: Scan, rows: Rows
    ) -> Mapping[str, int]:
        """Mask the client rows that both looks saw, by primary key."""
        covered = scan.rows.keys()
        masked: Counter[str] = Counter()
        for source in self._catalog.client_tables:
            for request_type, keys in rows.claims[source.name].items():
                both = [key for key in keys if (source.name, key) in covered]
                masked[request_type] += await mask_client_rows(connection, source, both)
        return masked


def _client_row(
    table: str, claim: leftovers.Claim, reason: BlockReason = BlockReason.UNKNOWN_TYPE
) -> Blocked:
    return Blocked(
        kind="client",
        table=table,
        row_key=progress.row_key(claim.primary_key),
        request_type=claim.request_type,
        request_id=claim.request_id,
        reason=reason,
    )
