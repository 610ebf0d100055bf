"""Which objects of a job's journal are still there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import Deletion
from lethe_eraser.storage.journal import Intent, Journal


class Store(Protocol):
    """What verification needs of the object store; every method raises while it is away."""

    def look_anew(self) -> None:
        """Believe nothing that was learnt of buckets before."""
        ...

    async def remaining(self, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        """Tell which of `refs` still exist, in any version."""
        ...

    async def delete(self, refs: Sequence[ObjectRef]) -> Deletion:
        """Make sure that `refs` are gone, or tagged in every version."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectsLeft:
    """What of the journal is there."""

    found: tuple[Intent, ...] = ()
    """Objects that should be gone and are not, each under the batch that removed it."""
    scheduled: int = 0
    """Objects that are tagged and wait for their lifecycle rule."""


async def objects_left(
    connection: AsyncConnection,
    journal: Journal,
    store: Store,
    job_id: UUID,
    may_go_on: Callable[[], bool],
) -> ObjectsLeft | None:
    """Ask for every object of the journal; None if `may_go_on` said no.

    What is scheduled and has lost its tag, or got a new version without one, is tagged again.
    """
    found: list[Intent] = []
    seen: set[ObjectRef] = set()
    scheduled: set[ObjectRef] = set()
    # A bucket whose versions were switched on meanwhile keeps what was deleted behind a marker.
    store.look_anew()
    async for intent in journal.all(connection, job_id):
        if not may_go_on():
            return None
        waiting, failed = frozenset(intent.scheduled), frozenset(intent.failed)
        claimed_gone = [ref for ref in intent.refs if ref not in failed]
        left = await store.remaining(claimed_gone) if claimed_gone else frozenset()
        if tagged := left & waiting - seen:
            again = await store.delete(sorted(tagged, key=str))
            scheduled |= again.scheduled
            left -= again.done
        if new := left - seen:
            found.append(intent.naming(new))
        seen |= left | waiting
    return ObjectsLeft(tuple(found), len(scheduled))
