"""The eraser dies before every effect of an erasure; another one ends it, and all is true."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from lethe_contracts.events import TypeTotals
from lethe_sandbox.stack import S3Address
from tests.faults.eraser.audit import Before, assert_erased_once, assert_traceable, look
from tests.integration.eraser.world import (
    COUNTED,
    OTHER,
    World,
    make_catalog,
    open_store,
    to_the_end,
)
from tests.integration.eraser_objects.conftest import eraser_with
from tests.support.effects import Effects, Killed, MortalEdges

PICTURE: Final = "common/picture.png"
EXPECTED: Final = {
    "sketch": TypeTotals(
        feature_rows=3, task_rows=3, client_rows=3, objects_gone=4, objects_kept=2
    ),
    "document": TypeTotals(feature_rows=1, client_rows=1, objects_gone=3),
}
"""What is told of each person of `person`, by hand."""

KINDS_OF_EFFECTS: Final = {"commit", "DeleteObjects", "invalidation"}


@pytest.fixture
async def full(world: World, s3: S3Address, tmp_path: Path) -> AsyncIterator[World]:
    """Every kind of handler, of ownership and of bucket, an edge, and somebody else."""
    edge = {"origin_path: /public": "origin_path: /public, distribution: E2ABC"}
    await fill(world, tmp_path, edge)
    async with open_store(s3, world.catalog) as store:
        world.store = store
        yield world


async def fill(world: World, folder: Path, changes: Mapping[str, str]) -> None:
    """Let the catalog name every kind of ownership and of bucket, and somebody else be there."""
    await world.write("create index on sketch_feature ((option ->> 'key'))")
    results = world.buckets["results"]
    counting = {f"{results}: {{}}": f"{results}: {{count_missing: true}}"}
    world.catalog = make_catalog(folder, world.buckets, {**COUNTED, **counting, **changes})
    world.put("uploads", PICTURE)
    world.put("uploads", "templates/a.png")
    await world.sketch(1, subject=OTHER)
    await world.sketch(2, subject=OTHER, option=_option(world, PICTURE))
    await world.document(1, subject=OTHER)


def _option(world: World, key: str) -> dict[str, str]:
    return {"bucket": world.buckets["uploads"], "key": key}


async def person(world: World, number: int) -> tuple[str, Before]:
    """A person of `one_of_many`, whose erasure is asked for."""
    subject, ref, before = await one_of_many(world, number)
    await world.accept(world.requested(ref=ref, subject=subject), ref=ref)
    return subject, before


async def one_of_many(world: World, number: int) -> tuple[str, str, Before]:
    """A person with every kind of row and object: the subject, its `subject_ref`, all before it."""
    subject = f"acct-{number:06d}-of-many"
    await world.sketch(0, subject=subject)
    await world.sketch(1, subject=subject, source="client_old", option=_option(world, PICTURE))
    await world.sketch(2, subject=subject, option=_option(world, "templates/a.png"))
    await world.document(1, subject=subject)
    return subject, f"1.many{number}", await look(world)


async def lives_until(world: World, edges: MortalEdges, die_before: int) -> bool:
    """Run an eraser that dies before an effect; False if it had no so many."""
    edges.effects = Effects(die_before)
    eraser = eraser_with(world, edges, batch_rows=2)
    try:
        with edges.effects.of(world.engine):
            await to_the_end(world, eraser)
    except Killed:
        return True
    return False


async def ended(world: World, edges: MortalEdges, subject: str, before: Before) -> None:
    edges.effects = Effects()
    assert await to_the_end(world, eraser_with(world, edges, batch_rows=2)) == "verified"
    await assert_erased_once(world, before, subject, EXPECTED)
    told = {path for _, paths in edges.created.values() for path in paths}
    assert {f"/{subject}-{number}.png" for number in range(3)} <= told


async def test_killed_before_every_effect(full: World) -> None:
    edges = MortalEdges()
    died = 0
    while True:
        subject, before = await person(full, died)
        if not await lives_until(full, edges, died):
            break
        await assert_traceable(full, before, subject)
        await ended(full, edges, subject, before)
        died += 1
    # The last life had every effect: it is judged like the others.
    await ended(full, edges, subject, before)
    assert died > 10, "an erasure of several batches has more effects"


async def test_killed_again_and_again_a_little_later_each_time(full: World) -> None:
    edges = MortalEdges()
    subject, before = await person(full, 0)
    lives = 1
    seen = set[str]()
    while await lives_until(full, edges, lives):
        await assert_traceable(full, before, subject)
        seen |= set(edges.effects.seen)
        lives += 1
    seen |= set(edges.effects.seen)
    await ended(full, edges, subject, before)
    assert lives > 3
    assert seen == KINDS_OF_EFFECTS
