"""Finds what the next client rows of a person stand for: rows, and the objects they name."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_eraser.catalog import ClientTable
from lethe_eraser.domain import AsRead, BlockedRow, Job, ObjectRef, RowTarget
from lethe_eraser.execute.ahead import BATCH_OBJECTS, Ahead, Read, by_type, divided, joined
from lethe_eraser.execute.left_behind import blocked_row, unknown
from lethe_eraser.handlers import ErasureHandler, SourceReader
from lethe_eraser.storage import counted, progress
from lethe_eraser.storage.journal import Intent, OfType
from lethe_eraser.storage.progress import Blocked, Stretch

MOST_READS: Final = 10
"""How often a batch in which nothing is to be done reads on before it notes how far it came."""

Handlers = Callable[[str], ErasureHandler | None]

Underway = Callable[[], Collection[Intent]]
"""Gives the batches that were begun and are not masked yet, as they are when it is called."""


class Finder(Protocol):
    """What finding needs of the object store."""

    async def missing(self, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        """Give those that are not there, of buckets where it is asked; raises while it is away."""
        ...


@dataclass(slots=True)
class _Plan:
    """What a batch was found to consist of so far."""

    stretches: list[Stretch] = field(default_factory=list)
    found: list[OfType] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    client_rows: int = 0
    objects: int = 0

    def add(self, reads: Sequence[Read], part: OfType, blocked: Iterable[Blocked]) -> None:
        self.stretches += [read.stretch for read in reads]
        self.client_rows += sum(len(read.rows) for read in reads)
        self.blocked += blocked
        if part.rows:
            self.found.append(part)
            self.objects += sum(row.objects for row in part.rows)

    @property
    def is_empty(self) -> bool:
        return not self.found and not self.blocked


class Collector:
    """Collects batches.

    Args:
        engine: the product's database.
        sources: the client tables.
        handlers: finds the handler of a request type.
        objects: tells which objects are not there.
        batch_rows: client rows per batch.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        sources: Iterable[ClientTable],
        handlers: Handlers,
        objects: Finder,
        batch_rows: int,
    ) -> None:
        self._engine = engine
        self._sources: Mapping[str, ClientTable] = {source.name: source for source in sources}
        self._handlers = handlers
        self._objects = objects
        self._batch_rows = batch_rows

    async def ahead(self, job: Job, subject: str) -> Ahead:
        """See what of the job's round is still to be read."""
        ahead = Ahead(
            self._sources,
            subject,
            batch_rows=self._batch_rows,
            kind_of=lambda request_type: type(self._handlers(request_type)).__name__,
        )
        async with self._engine.connect() as connection:
            steps = await progress.steps(connection, job.job_id, job.round)
            await ahead.begin(connection, steps)
        return ahead

    async def collect(self, job: Job, subject: str, ahead: Ahead, underway: Underway) -> Intent:
        """Read on until there is something to do; the plan has no number yet."""
        # Looked at before anything is read: what is masked in between is not read any more.
        begun = {(row.table, row.row_id) for one in underway() for row in one.rows}
        plan = _Plan()
        async with self._reading() as connection:
            for _ in range(MOST_READS):
                reads = by_type(await ahead.read(connection))
                for place, (request_type, of_type) in enumerate(reads):
                    if plan.objects >= BATCH_OBJECTS:
                        ahead.put_back(read for _, left in reads[place:] for read in left)
                        break
                    room = BATCH_OBJECTS - plan.objects
                    part, blocked, later = await self._find(
                        connection, job, subject, request_type, of_type, underway, room
                    )
                    taken, left = divided(of_type, later)
                    plan.add(taken, _without(part, begun), blocked)
                    if left:
                        rest = (read for _, others in reads[place + 1 :] for read in others)
                        ahead.put_back([*left, *rest])
                        break
                if not plan.is_empty or ahead.is_done:
                    break
        ahead.learn(plan.client_rows, plan.objects)
        intent = Intent(
            batch=0,
            stretches=joined(plan.stretches),
            found=tuple(plan.found),
            blocked=tuple(plan.blocked),
        )
        return await self._with_missing(intent, underway)

    async def _find(
        self,
        connection: AsyncConnection,
        job: Job,
        subject: str,
        request_type: str,
        reads: Sequence[Read],
        underway: Underway,
        room: int,
    ) -> tuple[OfType, list[Blocked], Collection[int]]:
        """Find what the client rows of one type stand for; gives the requests that are too much."""
        handler = self._handlers(request_type)
        nothing = OfType(request_type=request_type)
        if handler is None:
            return (
                nothing,
                [
                    unknown(self._sources[read.stretch.page.source], request_type, row)
                    for read in reads
                    for row in read.rows
                ],
                (),
            )
        rows = (row for read in reads for row in read.rows)
        # In the order of client rows, so that what is for later is the end of them.
        ids = list(dict.fromkeys(row.request_id for row in rows if row.request_id is not None))
        if not ids:
            return nothing, [], ()
        if isinstance(handler, SourceReader):
            targets = await handler.find_some(connection, request_type, ids, subject, enough=room)
        else:
            targets = await handler.find_targets(connection, request_type, ids, subject)
        later = {*targets.later, *_beyond(targets.rows, ids, room)}
        blocked = [row for row in targets.blocked if row.request_id not in later]
        revived, left = await _revive(connection, job, blocked, underway)
        found = (row for row in targets.rows if row.request_id not in later)
        part = replace(nothing, rows=(*found, *revived))
        return part, [blocked_row(row, request_type, row.reason) for row in left], later

    async def _with_missing(self, plan: Intent, underway: Underway) -> Intent:
        """Ask which of the batch's objects are not there, before anything of it is deleted."""
        missing = set(await self._objects.missing(plan.refs))
        if missing:
            # What a batch before this one has just deleted was there.
            missing -= {ref for intent in underway() for ref in intent.refs}
        if not missing:
            return plan
        owners = plan.owners
        found = []
        for part in plan.found:
            mine = (ref for ref in missing if owners[ref] == part.request_type)
            found.append(replace(part, missing=tuple(sorted(mine, key=str))))
        return replace(plan, found=tuple(found))

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection without a transaction: finding may wait for S3, and must hold nothing."""
        async with self._engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")


def _beyond(rows: Iterable[RowTarget], ids: Sequence[int], room: int) -> Sequence[int]:
    """Give the requests after the one with which `room` is full."""
    held: Counter[int] = Counter()
    for row in rows:
        held[row.request_id] += row.objects
    for place, request_id in enumerate(ids):
        room -= held[request_id]
        if room <= 0:
            return ids[place + 1 :]
    return ()


def _without(part: OfType, begun: Collection[tuple[str, int]]) -> OfType:
    """Leave rows to the batch before: a request may stand in several client rows."""
    if not any((row.table, row.row_id) in begun for row in part.rows):
        return part
    rows = (row for row in part.rows if (row.table, row.row_id) not in begun)
    return replace(part, rows=tuple(rows))


async def _revive(
    connection: AsyncConnection,
    job: Job,
    blocked: Sequence[BlockedRow],
    underway: Underway,
) -> tuple[list[RowTarget], list[BlockedRow]]:
    """Take rows back whose missing object is missing because this job deleted it."""
    missing = [row.missing for row in blocked if row.missing is not None]
    if not missing:
        return [], list(blocked)
    # What is there by the time it goes was written since, and is to be read.
    # Looked at before the database: a batch that is masked in between is in one of the two.
    now = {ref for one in underway() for row in one.rows for ref in row.delete_last}
    ours = now | await counted.deleted_last(connection, job.job_id, missing)
    left = [row for row in blocked if row.missing not in ours]
    revived = [
        RowTarget(
            kind=row.kind,
            table=row.table,
            row_id=row.row_id,
            row_version=row.row_version,
            request_id=row.request_id,
            delete=(),
            delete_last=(row.missing,),
            kept=0,
            as_read=(AsRead(row.missing, ()),),
        )
        for row in blocked
        if row.missing is not None and row.missing in ours
    ]
    return revived, left
