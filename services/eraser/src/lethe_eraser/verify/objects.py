"""Which objects of a job's journal are still there, and what those lead to that lead to others."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.domain import ObjectRef, Source
from lethe_eraser.handlers import ErasureHandler, SourceReader
from lethe_eraser.objects import Deletion, Held
from lethe_eraser.storage.journal import Intent, Journal


class Store(Protocol):
    """What verification needs of the object store; every method raises while it is away."""

    def look_anew(self) -> None:
        """Believe nothing that was learnt of buckets before."""
        ...

    async def remaining(self, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        """Tell which of `refs` still exist, in any version."""
        ...

    async def delete(self, refs: Sequence[ObjectRef], held: Held | None = None) -> Deletion:
        """Make sure that `refs` are gone, or tagged in every version; as `ObjectStore.delete`."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectsLeft:
    """What of the journal is there."""

    found: tuple[Intent, ...] = ()
    """Objects that should be gone and are not, each under the batch that removed it."""
    scheduled: int = 0
    """Objects that are tagged and wait for their lifecycle rule."""
    read_anew: Mapping[ObjectRef, Source | BlockReason] = field(default_factory=dict)
    """Of `found`, those that others are found through, which the product wrote again."""


Handlers = Callable[[str], ErasureHandler | None]


async def objects_left(
    connection: AsyncConnection,
    journal: Journal,
    store: Store,
    job_id: UUID,
    may_go_on: Callable[[], bool],
) -> ObjectsLeft | None:
    """Ask for every object of the journal; None if `may_go_on` said no.

    What is scheduled and has lost its tag, or got a new version without one, is tagged again; not
    if others might be found through what is new in it. What something is blocked for is known.
    """
    found: list[Intent] = []
    seen: set[ObjectRef] = set()
    scheduled: set[ObjectRef] = set()
    # A bucket whose versions were switched on meanwhile keeps what was deleted behind a marker.
    store.look_anew()
    known = {
        ref
        async for intent in journal.all(connection, job_id, blocked=True)
        for ref in intent.failed
    }
    async for intent in journal.all(connection, job_id):
        if not may_go_on():
            return None
        waiting = frozenset(intent.scheduled)
        # What S3 refused is no row's any more, if nothing is blocked for it.
        to_be_gone = [ref for ref in intent.refs if ref not in known]
        left = await store.remaining(to_be_gone) if to_be_gone else frozenset()
        if tagged := left & waiting - seen:
            again = await store.delete(sorted(tagged, key=str), intent.held)
            scheduled |= again.scheduled
            left -= again.done
        if new := left - seen:
            found.append(intent.naming(new))
        seen |= left | waiting
    return ObjectsLeft(tuple(found), len(scheduled))


async def read_anew(
    handlers: Handlers, subject: str, found: Collection[Intent]
) -> dict[ObjectRef, Source | BlockReason]:
    """Read what of `found` others are found through: no row leads there any more."""
    read: dict[ObjectRef, Source | BlockReason] = {}
    for intent in found:
        for part in intent.found:
            handler = handlers(part.request_type)
            if not isinstance(handler, SourceReader):
                continue
            for ref in part.objects:
                if ref in intent.held:
                    read[ref] = await handler.read_source(part.request_type, ref, subject)
    return read


def given_again(
    found: Collection[Intent], read: Mapping[ObjectRef, Source | BlockReason]
) -> Iterator[Intent]:
    """Give what the next round is to delete, without numbers: what came back, and what it leads to.

    What nobody could read stays: the only way to what it names.
    """
    for intent in found:
        for part in intent.found:
            sources = [one for ref in part.objects if isinstance(one := read.get(ref), Source)]
            left = [ref for ref in part.objects if not isinstance(read.get(ref), BlockReason)]
            left += [ref for source in sources for ref in source.delete]
            if left:
                yield Intent.of_objects(
                    0,
                    part.request_type,
                    dict.fromkeys(left),
                    if_unreferenced=intent.if_unreferenced,
                    as_read=[source.as_read for source in sources],
                )
            if counted := [ref for source in sources for ref in source.unless_referenced]:
                yield Intent.of_objects(
                    0, part.request_type, dict.fromkeys(counted), if_unreferenced=True
                )
