"""A batch is bounded by what its rows lead to, not by how many they are."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from lethe_eraser.domain import ObjectRef
from lethe_eraser.execute import ahead, collecting
from lethe_eraser.objects import Content, Deletion, Held
from lethe_eraser.storage.journal import Intent
from tests.integration.eraser.world import (
    NOTHING,
    OTHER,
    SUBJECT,
    Eraser,
    World,
    put_in,
    to_the_end,
)
from tests.support.no_objects import NoObjects

MANIFESTS: Final = 24
FILES: Final = 1_000
BOUND: Final = 5_000


class Manifests(NoObjects):
    """An S3 of manifests that name a thousand files each; it keeps count, and no object."""

    def __init__(self) -> None:
        self.read_manifests: list[str] = []
        self.deleted: set[ObjectRef] = set()

    @asynccontextmanager
    async def stream(self, ref: ObjectRef, limit_bytes: int) -> AsyncIterator[Content]:
        self.read_manifests.append(ref.key)
        assert limit_bytes > FILES

        async def chunks() -> AsyncIterator[bytes]:
            yield b'{"fileKeyList": ["last"'
            for number in range(FILES - 1):
                yield f', "{ref.key}/{number}"'.encode()
            yield b"]}"

        yield Content(chunks(), "v1")

    async def versions(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Sequence[ObjectRef]]:
        return {ref: (ref,) for ref in refs}

    async def missing(self, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        del refs
        return frozenset()

    def look_anew(self) -> None:
        """Nothing is believed of buckets that are not there."""

    async def remaining(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        return frozenset(refs) - self.deleted

    async def delete(self, refs: Sequence[ObjectRef], held: Held | None = None) -> Deletion:
        del held
        self.deleted.update(refs)
        return Deletion(gone=frozenset(refs), failed={})


def plans_of(eraser: Eraser) -> list[Intent]:
    """Note every plan before it is committed."""
    plans: list[Intent] = []
    intend = eraser.batches.intend

    async def intended(job: Any, plan: Intent) -> Any:
        plans.append(plan)
        return await intend(job, plan)

    put_in(eraser.batches, "intend", intended)
    return plans


async def test_many_manifests_of_many_files_are_many_batches(world: World) -> None:
    await world.write(
        "with made as (insert into document (manifest_path, title)"
        " select 'manifests/' || n, 'a title' from generate_series(1, :n) n returning id)"
        " insert into client (client_key, request_type, request_id, created_at)"
        " select :s, 'document', id, '2024-03-01' from made",
        n=MANIFESTS,
        s=SUBJECT,
    )
    objects = Manifests()
    eraser = world.eraser(batch_rows=500, objects=objects)
    plans = plans_of(eraser)
    await world.accept(world.requested())
    assert await to_the_end(world, eraser) == "verified"
    # One request goes over the bound, of which the next batches have learnt.
    assert [len(plan.rows) for plan in plans] == [5, 4, 4, 4, 4, 3]
    assert max(len(plan.refs) for plan in plans) <= BOUND + FILES
    assert set(objects.read_manifests) == {f"manifests/{n + 1}" for n in range(MANIFESTS)}
    # What was being read when it was enough is read again: once, before anything was learnt.
    assert len(objects.read_manifests) <= MANIFESTS + 3
    assert len(objects.deleted) == MANIFESTS * FILES + 1


async def test_rows_that_are_for_later_are_read_by_the_next_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several types and client tables, some requests in both of them."""
    for module in (ahead, collecting):
        monkeypatch.setattr(module, "BATCH_OBJECTS", 5)
    for number in range(9):
        source = "client" if number % 3 else "client_old"
        feature = await world.sketch(number, source=source)
        if number % 2:
            await world.client_row("sketch", feature, source="client_old")
    for number in range(4):
        await world.document(number)
    await world.sketch(1, subject=OTHER)
    eraser = world.eraser(batch_rows=500)
    plans = plans_of(eraser)
    await world.accept(world.requested())
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.left_of(OTHER))["objects"] == 2
    assert max(len(plan.refs) for plan in plans) <= 7
    rows = [(row.table, row.row_id) for plan in plans for row in plan.rows]
    assert len(rows) == len(set(rows)) == 9 * 2 + 4
    assert await world.value("select round from lethe.job") == 1
    ends: dict[tuple[str, str], str | None] = {}
    for stretch in (one for plan in plans for one in plan.stretches):
        place = (stretch.page.request_type, stretch.page.source)
        assert stretch.page.after == ends.get(place)
        ends[place] = stretch.end
