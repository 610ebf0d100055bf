"""The intent journal: the plan of every batch as ciphertext, one row per batch.

An intent is committed before the first delete, so that no crash and no change of a row can lose the
name of an object. An unfinished batch is finished from its intent, never from what is left.
"""

import json
import zlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.cipher import Cipher
from lethe_contracts.states import BlockReason
from lethe_eraser.domain import AsRead, ObjectRef, RowTarget
from lethe_eraser.storage.progress import OBJECTS_ONLY, Blocked, Page, Stretch
from lethe_eraser.storage.tables import blocked_row, journal


@dataclass(frozen=True, kw_only=True)
class OfType:
    """What a batch sets out to do with one request type."""

    request_type: str
    rows: tuple[RowTarget, ...] = ()
    objects: tuple[ObjectRef, ...] = ()
    """Objects without a row: deleted before, and found again by verification."""
    missing: tuple[ObjectRef, ...] = ()
    """Objects that were not there before anything was deleted, as far as that is asked."""
    as_read: tuple[AsRead, ...] = ()
    """Those of `objects` that the others were found in: they go last, and as they were read."""

    @cached_property
    def refs(self) -> tuple[ObjectRef, ...]:
        """Every object that is to be deleted, once each."""
        named = dict.fromkeys(self.objects)
        for row in self.rows:
            named.update(dict.fromkeys(row.delete))
            named.update(dict.fromkeys(row.delete_last))
        return tuple(named)


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What one batch sets out to do, over all its stretches of client rows."""

    # Without slots: what follows from the plan is asked for again and again, and kept.

    batch: int
    stretches: tuple[Stretch, ...]
    found: tuple[OfType, ...] = ()
    """By request type, each once."""
    blocked: tuple[Blocked, ...] = ()
    if_unreferenced: bool = False
    """Whether `objects` are deleted only as long as no row names them again."""
    failed: tuple[ObjectRef, ...] = ()
    """Objects that S3 refused to delete."""
    scheduled: tuple[ObjectRef, ...] = ()
    """Objects that are tagged and wait for their lifecycle rule."""

    @classmethod
    def of_objects(
        cls,
        batch: int,
        request_type: str,
        objects: Iterable[ObjectRef],
        *,
        if_unreferenced: bool,
        as_read: Iterable[AsRead] = (),
    ) -> "Intent":
        """Set out to delete objects that no row of the person names any more."""
        part = OfType(request_type=request_type, objects=tuple(objects), as_read=tuple(as_read))
        return cls(
            batch=batch,
            stretches=(Stretch(Page(request_type, OBJECTS_ONLY)),),
            found=(part,),
            if_unreferenced=if_unreferenced,
        )

    @property
    def request_type(self) -> str:
        """The type in which the batch ends."""
        return self.stretches[-1].page.request_type

    @cached_property
    def rows(self) -> tuple[RowTarget, ...]:
        """The rows of all types."""
        return tuple(row for part in self.found for row in part.rows)

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects without a row, of all types."""
        return tuple(ref for part in self.found for ref in part.objects)

    @property
    def missing(self) -> tuple[ObjectRef, ...]:
        """The objects of all types that were not there beforehand."""
        return tuple(ref for part in self.found for ref in part.missing)

    @cached_property
    def held(self) -> Mapping[ObjectRef, tuple[str, ...]]:
        """What may be deleted of the objects that only go as they were read.

        Of one that two rows read differently, nothing: it was written anew in between.
        """
        held: dict[ObjectRef, tuple[str, ...]] = {}
        for part in self.found:
            for one in (*part.as_read, *(one for row in part.rows for one in row.as_read)):
                is_same = held.setdefault(one.ref, one.held) == one.held
                held[one.ref] = one.held if is_same else ()
        return held

    @cached_property
    def refs(self) -> tuple[ObjectRef, ...]:
        """Every object of the batch, once each."""
        return tuple(self.owners)

    @cached_property
    def owners(self) -> Mapping[ObjectRef, str]:
        """Give every object of the batch with the type it counts for: the first that names it."""
        owners: dict[ObjectRef, str] = {}
        for part in self.found:
            for ref in part.refs:
                owners.setdefault(ref, part.request_type)
        return owners

    def naming(self, objects: Collection[ObjectRef]) -> "Intent":
        """Name `objects`, which are among the batch's, as the ones without a row; each once."""
        owners = self.owners
        of_type: dict[str, list[ObjectRef]] = {}
        for ref in sorted(objects, key=str):
            of_type.setdefault(owners[ref], []).append(ref)
        return replace(
            self,
            found=tuple(
                replace(part, objects=tuple(of_type.get(part.request_type, ())))
                for part in self.found
            ),
        )


class Journal:
    """Intents of batches, encrypted; one row per batch."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    async def write(
        self,
        connection: AsyncConnection,
        job_id: UUID,
        round_: int,
        intent: Intent,
        *,
        masked: bool = False,
    ) -> None:
        """Write an intent, or write it anew with what became of its objects."""
        ends = intent.stretches[-1]
        row = insert(journal).values(
            job_id=job_id,
            batch=intent.batch,
            round=round_,
            request_type=ends.page.request_type,
            source=ends.page.source,
            after_key=ends.page.after,
            masked=masked,
            intent=self._sealed(job_id, intent),
        )
        await connection.execute(
            row.on_conflict_do_update(
                index_elements=[journal.c.job_id, journal.c.batch],
                set_={"intent": row.excluded.intent, "masked": row.excluded.masked},
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
        self,
        connection: AsyncConnection,
        job_id: UUID,
        *,
        after: int = 0,
        blocked: bool = False,
    ) -> AsyncIterator[Intent]:
        """Read every intent of the job, of batches later than `after`, one at a time.

        With `blocked` only those of batches in which something was met that is blocked.
        """
        last = after
        only = [journal.c.batch.in_(_touched(job_id))] if blocked else []
        while True:
            rows = await connection.execute(
                select(journal)
                .where(journal.c.job_id == job_id, journal.c.batch > last, *only)
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
        left = journal.c.batch.not_in(_touched(job_id))
        await connection.execute(delete(journal).where(journal.c.job_id == job_id, left))

    def _sealed(self, job_id: UUID, intent: Intent) -> bytes:
        text = json.dumps(_written(intent), ensure_ascii=False, separators=(",", ":"))
        plain = zlib.compress(text.encode("utf-8", "surrogatepass"))
        return self._cipher.encrypt(plain, context=_context(job_id, intent.batch)).encode("ascii")

    def _opened(self, job_id: UUID, row: Any) -> Intent:
        token = bytes(row.intent).decode("ascii")
        plain = self._cipher.decrypt(token, context=_context(job_id, row.batch))
        written = json.loads(zlib.decompress(plain).decode("utf-8", "surrogatepass"))
        return _read(row.batch, Page(row.request_type, row.source, row.after_key), written)


def _touched(job_id: UUID) -> Select[tuple[int]]:
    """Give the batches in which something was met that is blocked."""
    return select(blocked_row.c.batch).where(
        blocked_row.c.job_id == job_id, blocked_row.c.batch.is_not(None)
    )


def _context(job_id: UUID, batch: int) -> str:
    return f"journal:{job_id}:{batch}"


def _written(intent: Intent) -> dict[str, Any]:
    named: dict[ObjectRef, None] = dict.fromkeys((*intent.refs, *intent.failed))
    for part in intent.found:
        named.update(dict.fromkeys(part.missing))
        for row in part.rows:
            named.update(dict.fromkeys(row.unless_referenced))
    at = {ref: index for index, ref in enumerate(named)}
    return {
        "refs": [[ref.bucket, ref.key, ref.version] for ref in at],
        "stretches": [
            [one.page.request_type, one.page.source, one.page.after, one.end, one.done]
            for one in intent.stretches
        ],
        "found": [
            {
                "type": part.request_type,
                "rows": [_row(row, at) for row in part.rows],
                "objects": [at[ref] for ref in part.objects],
                "missing": [at[ref] for ref in part.missing],
                "as_read": [[at[one.ref], one.held] for one in part.as_read],
            }
            for part in intent.found
        ],
        "if_unreferenced": intent.if_unreferenced,
        "failed": [at[ref] for ref in intent.failed],
        "scheduled": [at[ref] for ref in intent.scheduled],
        "blocked": [asdict(row) for row in intent.blocked],
    }


def _row(row: RowTarget, at: Mapping[ObjectRef, int]) -> list[Any]:
    return [
        row.kind,
        row.table,
        row.row_id,
        row.row_version,
        row.request_id,
        [at[ref] for ref in row.delete],
        [at[ref] for ref in row.delete_last],
        row.kept,
        [at[ref] for ref in row.unless_referenced],
        [[at[one.ref], one.held] for one in row.as_read],
    ]


def _read(batch: int, page: Page, written: Mapping[str, Any]) -> Intent:
    refs = [ObjectRef(*ref) for ref in written["refs"]]
    return Intent(
        batch=batch,
        stretches=_stretches(page, written),
        found=tuple(
            OfType(
                request_type=part["type"],
                rows=tuple(_target(row, refs) for row in part["rows"]),
                objects=_named(refs, part["objects"]),
                missing=_named(refs, part.get("missing", ())),
                as_read=_as_read(refs, part.get("as_read", ())),
            )
            # An intent of an earlier release has one page of one type, and names it outside.
            for part in written.get("found", [{"type": page.request_type, **written}])
        ),
        if_unreferenced=written.get("if_unreferenced", False),
        failed=_named(refs, written["failed"]),
        scheduled=_named(refs, written.get("scheduled", ())),
        blocked=tuple(
            Blocked(**{**row, "reason": BlockReason(row["reason"])}) for row in written["blocked"]
        ),
    )


def _stretches(page: Page, written: Mapping[str, Any]) -> tuple[Stretch, ...]:
    if "stretches" not in written:
        return (Stretch(page, written["end"], written["done"]),)
    return tuple(
        Stretch(Page(request_type, source, after), end, done)
        for request_type, source, after, end, done in written["stretches"]
    )


def _target(row: Sequence[Any], refs: Sequence[ObjectRef]) -> RowTarget:
    kind, table, row_id, version, request_id, first, last, kept, *more = row
    # An intent of an earlier release ends before these.
    counted, as_read = (*more, (), ())[:2]
    return RowTarget(
        kind,
        table,
        row_id,
        version,
        request_id,
        _named(refs, first),
        _named(refs, last),
        kept,
        _named(refs, counted),
        _as_read(refs, as_read),
    )


def _as_read(refs: Sequence[ObjectRef], written: Iterable[Any]) -> tuple[AsRead, ...]:
    return tuple(AsRead(refs[index], tuple(held)) for index, held in written)


def _named(refs: Sequence[ObjectRef], indices: Iterable[int]) -> tuple[ObjectRef, ...]:
    return tuple(refs[index] for index in indices)
