"""The intent journal: the plan of every batch as ciphertext, one row per batch.

An intent is committed before the first delete, so that no crash and no change of a row can lose the
name of an object. An unfinished batch is finished from its intent, never from what is left.
"""

import json
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.cipher import Cipher
from lethe_contracts.states import BlockReason
from lethe_eraser.domain import ObjectRef, RowTarget
from lethe_eraser.storage.progress import Blocked, Page
from lethe_eraser.storage.tables import blocked_row, journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What one batch sets out to do, from `page` to `end`."""

    batch: int
    page: Page
    end: str | None = None
    """The cursor of the last client row of the batch."""
    done: bool = False
    """Whether the batch is the last of its type and source in the round."""
    rows: tuple[RowTarget, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    objects: tuple[ObjectRef, ...] = ()
    """Objects without a row: deleted before, and found again by verification."""
    if_unreferenced: bool = False
    """Whether `objects` are deleted only as long as no row names them again."""
    missing: tuple[ObjectRef, ...] = ()
    """Objects that were not there before anything was deleted, as far as that is asked."""
    failed: tuple[ObjectRef, ...] = ()
    """Objects that S3 refused to delete."""
    scheduled: tuple[ObjectRef, ...] = ()
    """Objects that are tagged and wait for their lifecycle rule."""

    @property
    def refs(self) -> tuple[ObjectRef, ...]:
        """Every object of the batch, once each."""
        named = dict.fromkeys(self.objects)
        for row in self.rows:
            named.update(dict.fromkeys(row.delete))
            named.update(dict.fromkeys(row.delete_last))
        return tuple(named)


class Journal:
    """Intents of batches, encrypted; one row per batch."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    async def write(
        self, connection: AsyncConnection, job_id: UUID, round_: int, intent: Intent
    ) -> None:
        """Write an intent, or write it anew with what became of its objects."""
        row = insert(journal).values(
            job_id=job_id,
            batch=intent.batch,
            round=round_,
            request_type=intent.page.request_type,
            source=intent.page.source,
            after_key=intent.page.after,
            intent=self._sealed(job_id, intent),
        )
        await connection.execute(
            row.on_conflict_do_update(
                index_elements=[journal.c.job_id, journal.c.batch],
                set_={"intent": row.excluded.intent},
            )
        )

    async def mark_masked(self, connection: AsyncConnection, job_id: UUID, batch: int) -> None:
        """Note that the batch is done."""
        await connection.execute(
            update(journal)
            .where(journal.c.job_id == job_id, journal.c.batch == batch)
            .values(masked=True)
        )

    async def pending(self, connection: AsyncConnection, job_id: UUID) -> list[Intent]:
        """Read the intents whose batch was not finished, oldest first."""
        rows = await connection.execute(
            select(journal)
            .where(journal.c.job_id == job_id, journal.c.masked.is_(False))
            .order_by(journal.c.batch)
        )
        return [self._opened(job_id, row) for row in rows]

    async def has_pending(self, connection: AsyncConnection, job_id: UUID) -> bool:
        """Whether a batch of the job, or a delete that followed one, was not finished."""
        found = await connection.execute(
            select(journal.c.batch)
            .where(journal.c.job_id == job_id, journal.c.masked.is_(False))
            .limit(1)
        )
        return found.first() is not None

    async def all(
        self, connection: AsyncConnection, job_id: UUID, *, after: int = 0
    ) -> AsyncIterator[Intent]:
        """Read every intent of the job, of batches later than `after`, one at a time."""
        last = after
        while True:
            rows = await connection.execute(
                select(journal)
                .where(journal.c.job_id == job_id, journal.c.batch > last)
                .order_by(journal.c.batch)
                .limit(1)
            )
            row = rows.one_or_none()
            if row is None:
                return
            last = row.batch
            yield self._opened(job_id, row)

    async def purge(self, connection: AsyncConnection, job_id: UUID) -> None:
        """Drop all but the intents of batches that touched something blocked."""
        touched = select(blocked_row.c.batch).where(
            blocked_row.c.job_id == job_id, blocked_row.c.batch.is_not(None)
        )
        await connection.execute(
            delete(journal).where(journal.c.job_id == job_id, journal.c.batch.not_in(touched))
        )

    def _sealed(self, job_id: UUID, intent: Intent) -> bytes:
        text = json.dumps(_written(intent), ensure_ascii=False, separators=(",", ":"))
        plain = zlib.compress(text.encode("utf-8", "surrogatepass"))
        return self._cipher.encrypt(plain, context=_context(job_id, intent.batch)).encode("ascii")

    def _opened(self, job_id: UUID, row: Any) -> Intent:
        token = bytes(row.intent).decode("ascii")
        plain = self._cipher.decrypt(token, context=_context(job_id, row.batch))
        written = json.loads(zlib.decompress(plain).decode("utf-8", "surrogatepass"))
        return _read(row.batch, Page(row.request_type, row.source, row.after_key), written)


def _context(job_id: UUID, batch: int) -> str:
    return f"journal:{job_id}:{batch}"


def _written(intent: Intent) -> dict[str, Any]:
    counted = (ref for row in intent.rows for ref in row.unless_referenced)
    refs = tuple(dict.fromkeys((*intent.refs, *intent.failed, *intent.missing, *counted)))
    at = {ref: index for index, ref in enumerate(refs)}
    return {
        "refs": [[ref.bucket, ref.key, ref.version] for ref in refs],
        "end": intent.end,
        "done": intent.done,
        "objects": [at[ref] for ref in intent.objects],
        "if_unreferenced": intent.if_unreferenced,
        "missing": [at[ref] for ref in intent.missing],
        "failed": [at[ref] for ref in intent.failed],
        "scheduled": [at[ref] for ref in intent.scheduled],
        "blocked": [asdict(row) for row in intent.blocked],
        "rows": [
            [
                row.kind,
                row.table,
                row.row_id,
                row.row_version,
                row.request_id,
                [at[ref] for ref in row.delete],
                [at[ref] for ref in row.delete_last],
                row.kept,
                [at[ref] for ref in row.unless_referenced],
            ]
            for row in intent.rows
        ],
    }


def _read(batch: int, page: Page, written: Mapping[str, Any]) -> Intent:
    refs = [ObjectRef(*ref) for ref in written["refs"]]

    def named(indices: Sequence[int]) -> tuple[ObjectRef, ...]:
        return tuple(refs[index] for index in indices)

    return Intent(
        batch=batch,
        page=page,
        end=written["end"],
        done=written["done"],
        objects=named(written["objects"]),
        if_unreferenced=written.get("if_unreferenced", False),
        missing=named(written.get("missing", ())),
        failed=named(written["failed"]),
        scheduled=named(written.get("scheduled", ())),
        blocked=tuple(
            Blocked(**{**row, "reason": BlockReason(row["reason"])}) for row in written["blocked"]
        ),
        rows=tuple(
            RowTarget(
                kind,
                table,
                row_id,
                version,
                request_id,
                named(first),
                named(last),
                kept,
                # An intent of an earlier release ends here.
                named(counted[0] if counted else ()),
            )
            for kind, table, row_id, version, request_id, first, last, kept, *counted in written[
                "rows"
            ]
        ),
    )
