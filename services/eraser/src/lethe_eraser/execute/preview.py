"""What erasing a person would do: counts per table and bucket. Touches nothing."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import ObjectRef
from lethe_eraser.execute.collecting import Handlers
from lethe_eraser.storage.product import page_client_rows, types_of


@dataclass(slots=True)
class Preview:
    """Counts only; no id, key or URL."""

    client_rows: Counter[str] = field(default_factory=Counter)
    """By client table."""
    requests: Counter[str] = field(default_factory=Counter)
    """Client rows by request type."""
    rows: Counter[str] = field(default_factory=Counter)
    """Rows to be masked, by table."""
    objects: Counter[str] = field(default_factory=Counter)
    """Objects to be deleted, by bucket, each once."""
    objects_kept: int = 0
    """Named by a row and kept: shared, or another person's."""
    if_unreferenced: set[ObjectRef] = field(default_factory=set)
    """Objects that are deleted only if no other row names them by then."""
    blocked: Counter[BlockReason] = field(default_factory=Counter)
    """Rows that would be left, by reason."""

    def document(self) -> Mapping[str, Any]:
        """The same as plain values for JSON."""
        return {
            "client_rows": dict(sorted(self.client_rows.items())),
            "requests": dict(sorted(self.requests.items())),
            "rows": dict(sorted(self.rows.items())),
            "objects": dict(sorted(self.objects.items())),
            "objects_kept": self.objects_kept,
            "objects_if_unreferenced": len(self.if_unreferenced),
            "blocked": dict(sorted(self.blocked.items())),
        }


class Previewer:
    """Counts what a person's erasure consists of, with the same finding code that erases.

    Args:
        engine: the product's database; only read-only transactions are opened.
        sources: the client tables.
        handlers: finds the handler of a request type.
        batch_rows: client rows read at once.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        sources: Iterable[ClientTable],
        handlers: Handlers,
        batch_rows: int,
    ) -> None:
        self._engine = engine.execution_options(postgresql_readonly=True)
        self._sources = tuple(sources)
        self._handlers = handlers
        self._batch_rows = batch_rows

    async def preview(self, subject: str) -> Preview:
        """Count everything of `subject`."""
        found = Preview()
        seen_rows: set[tuple[str, int]] = set()
        seen_objects: set[ObjectRef] = set()
        for source in self._sources:
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
            found.objects[ref.bucket] += 1
        return found

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
