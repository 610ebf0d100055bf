"""What erasing a person would do: counts per table and bucket. Touches nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_contracts.states import BlockReason
from lethe_contracts.subject import SubjectRefs
from lethe_eraser.catalog import Catalog, ClientTable
from lethe_eraser.check import unclaimed_tables_of
from lethe_eraser.domain import UNFINISHED, Job, ObjectRef
from lethe_eraser.execute.collecting import Handlers
from lethe_eraser.storage import forecast, operations
from lethe_eraser.storage.accounts import Accounts
from lethe_eraser.storage.client_rows import page_client_rows, types_of


@dataclass(slots=True)
class Preview:
    """Counts only; no id, key or URL."""

    client_rows: Counter[str] = field(default_factory=Counter)
    """By client table."""
    requests: Counter[str] = field(default_factory=Counter)
    """Client rows by request type."""
    rows: Counter[str] = field(default_factory=Counter)
    """Rows to be masked, by table."""
    objects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Objects by bucket and what becomes of them, each once."""
    objects_kept: int = 0
    """Named by a row and kept: shared, or another person's."""
    if_unreferenced: set[ObjectRef] = field(default_factory=set)
    """Objects that are deleted only if no other row names them by then."""
    blocked: Counter[BlockReason] = field(default_factory=Counter)
    """Rows, and tables that nobody claims, that would be left, by reason."""
    job: Job | None = None
    """The person's newest job."""
    holds: int | None = None
    """Legal holds on the person; None if nobody can tell by which reference they are kept."""
    is_customer: bool | None = None
    """Whether the whole person would be blocked `subject_active`; None if nobody says where to
    ask."""
    expected_seconds: float | None = None
    """Of one worker, at the rate measured lately; None if none was measured."""

    def document(self) -> Mapping[str, Any]:
        """The same as plain values for JSON."""
        return {
            "client_rows": dict(sorted(self.client_rows.items())),
            "requests": dict(sorted(self.requests.items())),
            "rows": dict(sorted(self.rows.items())),
            "objects": self._by_bucket(),
            "objects_kept": self.objects_kept,
            "objects_if_unreferenced": len(self.if_unreferenced),
            "blocked": dict(sorted(self.blocked.items())),
            "unresolved": self.blocked[BlockReason.UNRESOLVED_REFERENCE],
            "job_id": None if self.job is None else str(self.job.job_id),
            "state": None if self.job is None else self.job.state.value,
            "holds": self.holds,
            "is_customer": self.is_customer,
            "expected_seconds": self.expected_seconds,
        }

    def _by_bucket(self) -> dict[str, dict[str, int]]:
        buckets: dict[str, dict[str, int]] = {}
        for (bucket, outcome), count in sorted(self.objects.items()):
            buckets.setdefault(bucket, {})[outcome] = count
        return buckets


class Previewer:
    """Counts what a person's erasure consists of, with the same finding code that erases.

    Args:
        engine: the product's database; only read-only transactions are opened.
        catalog: the client tables, what of the rest nobody claims, and which buckets leave the
            deleting to a lifecycle rule.
        handlers: finds the handler of a request type.
        refs: tells by which references the person is kept; None if the keys are not known.
        accounts: knows who is a customer; None if the catalog does not say where to ask.
        batch_rows: client rows read at once.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        catalog: Catalog,
        handlers: Handlers,
        refs: SubjectRefs | None,
        accounts: Accounts | None,
        batch_rows: int,
    ) -> None:
        self._engine = engine.execution_options(postgresql_readonly=True)
        self._catalog = catalog
        self._handlers = handlers
        self._refs = refs
        self._accounts = accounts
        self._batch_rows = batch_rows

    async def preview(self, subject: str) -> Preview:
        """Count everything of `subject`."""
        found = Preview()
        seen_rows: set[tuple[str, int]] = set()
        seen_objects: set[ObjectRef] = set()
        for source in self._catalog.client_tables:
            async with self._engine.connect() as connection:
                types = await types_of(connection, source, subject)
            for request_type, count in types.items():
                found.client_rows[source.name] += count
                found.requests[request_type] += count
                if self._handlers(request_type) is None:
                    found.blocked[BlockReason.UNKNOWN_TYPE] += count
                    continue
                await self._type(found, source, subject, request_type, seen_rows, seen_objects)
        found.if_unreferenced -= seen_objects
        for ref in seen_objects:
            scheduled = self._catalog.buckets[ref.bucket].tag is not None
            found.objects[ref.bucket, "scheduled" if scheduled else "gone"] += 1
        for ref in found.if_unreferenced:
            found.objects[ref.bucket, "if_unreferenced"] += 1
        async with self._engine.connect() as connection:
            met = await unclaimed_tables_of(connection, self._catalog, subject)
            found.blocked.update([BlockReason.UNCOVERED] * len(met))
            # A product may be looked at before it has any table of ours.
            if await operations.are_laid(connection):
                await self._from_our_tables(connection, found, subject)
            if self._accounts is not None:
                # A later request counts from its own day, not from a job that has ended.
                job = found.job
                since = job.looked_at if job is not None and job.state in UNFINISHED else None
                found.is_customer = await self._accounts.has_one(connection, subject, since=since)
        return found

    async def _from_our_tables(
        self, connection: AsyncConnection, found: Preview, subject: str
    ) -> None:
        if self._refs is not None:
            refs = self._refs.all_of(subject)
            found.job = await operations.newest_of(connection, refs)
            found.holds = await operations.count_holds(connection, refs)
        rate = await forecast.rate(connection)
        if rate is not None:
            found.expected_seconds = round(found.client_rows.total() / rate, 1)

    async def _type(
        self,
        found: Preview,
        source: ClientTable,
        subject: str,
        request_type: str,
        seen_rows: set[tuple[str, int]],
        seen_objects: set[ObjectRef],
    ) -> None:
        handler = self._handlers(request_type)
        after: str | None = None
        while handler is not None:
            async with self._engine.connect() as connection:
                page = await page_client_rows(
                    connection, source, subject, request_type, after=after, limit=self._batch_rows
                )
                ids = sorted({row.request_id for row in page if row.request_id is not None})
                targets = await handler.find_targets(connection, request_type, ids, subject)
            for row in targets.rows:
                if (row.table, row.row_id) not in seen_rows:
                    seen_rows.add((row.table, row.row_id))
                    found.rows[row.table] += 1
                    found.objects_kept += row.kept
                    seen_objects.update(row.delete, row.delete_last)
                    found.if_unreferenced.update(row.unless_referenced)
            for left in targets.blocked:
                if (left.table, left.row_id) not in seen_rows:
                    seen_rows.add((left.table, left.row_id))
                    found.blocked[left.reason] += 1
            if len(page) < self._batch_rows:
                return
            after = page[-1].cursor
