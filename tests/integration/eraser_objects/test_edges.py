"""The CDN is told after the delete, once, and the job waits until it has forgotten."""

from typing import Any

import pytest

from lethe_eraser.objects import Deletion
from lethe_eraser.objects.cdn import BUSY
from tests.integration.eraser.world import (
    COUNTED,
    COUNTED_INDEX,
    NOTHING,
    PICTURE,
    SUBJECT,
    Eraser,
    Killed,
    World,
    put_in,
)
from tests.integration.eraser_objects.conftest import MakeWorld, eraser_with
from tests.support.edges import Edges
from tests.support.factories import BucketFactory

DISTRIBUTION = (
    "origin_path: /public}}",
    """origin_path: /public, distribution: E2ABC}}
  uploads.test.example: {{bucket: {uploads}, distribution: E3DEF}}""",
)


@pytest.fixture
async def served(with_catalog: MakeWorld) -> World:
    world = await with_catalog(DISTRIBUTION)
    for number in range(3):
        await world.sketch(number)
    await world.accept(world.requested())
    return world


async def once_more(world: World, eraser: Eraser) -> str:
    await world.write("update lethe.job set retry_at = null")
    await eraser.until_idle()
    return await world.state()


async def test_the_job_waits_until_every_edge_has_forgotten(served: World) -> None:
    edges = Edges()
    eraser = eraser_with(served, edges)
    await eraser.until_idle()
    assert await served.state() == "erased"
    told = dict(edges.created.values())
    assert told == {
        "E2ABC": tuple(f"/{SUBJECT}-{number}.png" for number in range(3)),
        # All below it is this person's, by the catalog.
        "E3DEF": (f"/uploads/{SUBJECT}/*",),
    }
    assert await served.left_of(SUBJECT) == NOTHING | {"client": 3}
    assert await once_more(served, eraser) == "erased"
    edges.finish()
    assert await once_more(served, eraser) == "verified"
    assert len(edges.calls) == 2
    assert await served.value("select count(*) from lethe.invalidation") == 0


async def test_paths_are_kept_as_ciphertext(served: World) -> None:
    await eraser_with(served, Edges()).until_idle()
    rows = await served.rows("select t::text, paths from lethe.invalidation t")
    assert len(rows) == 2
    assert all(SUBJECT not in text and SUBJECT.encode() not in paths for text, paths in rows)


async def test_killed_after_the_cdn_was_told_it_is_told_the_same_again(served: World) -> None:
    edges = Edges()
    dying = eraser_with(served, edges)
    real = edges.create

    async def create_and_die(distribution: str, reference: str, paths: tuple[str, ...]) -> str:
        await real(distribution, reference, paths)
        raise Killed

    edges.create = create_and_die  # type: ignore[method-assign]  # it dies once
    with pytest.raises(Killed):
        await dying.until_idle()
    edges.create = real  # type: ignore[method-assign]  # and works again
    eraser = eraser_with(served, edges)
    await once_more(served, eraser)
    assert len(edges.created) == 2
    assert len(edges.calls) == 3
    edges.finish()
    assert await once_more(served, eraser) == "verified"


@pytest.mark.parametrize("code", [BUSY, "AccessDenied", "EndpointConnectionError"])
async def test_a_cdn_that_does_not_do_it_costs_no_attempt_and_is_asked_again(
    served: World, code: str
) -> None:
    edges = Edges(refuses=code)
    eraser = eraser_with(served, edges)
    await eraser.until_idle()
    assert await served.state() == "erased"
    assert await served.value("select attempts from lethe.job") == 0
    edges.refuses = None
    await once_more(served, eraser)
    edges.finish()
    assert await once_more(served, eraser) == "verified"


async def test_what_a_later_round_removes_is_told_too(served: World) -> None:
    edges = Edges()
    eraser = eraser_with(served, edges)
    await eraser.until_idle()
    served.put("results", f"public/{SUBJECT}-1.png")
    await once_more(served, eraser)
    await once_more(served, eraser)
    later = list(edges.created.values())[2:]
    assert later == [("E2ABC", (f"/{SUBJECT}-1.png",))]
    edges.finish()
    assert await once_more(served, eraser) == "verified"


async def test_a_distribution_before_a_replica_is_told_too(
    with_catalog: MakeWorld, bucket: BucketFactory
) -> None:
    world = await with_catalog(
        ("{{ {uploads}: {{}}", "{{ {copy}: {{}}, {uploads}: {{replicas: [{copy}]}}"),
        ("hosts:", "hosts:\n  copy.test.example: {{bucket: {copy}, distribution: E4GHI}}"),
        copy=bucket(),
    )
    await world.sketch(1)
    await world.accept(world.requested())
    edges = Edges()
    await eraser_with(world, edges).until_idle()
    assert list(edges.created.values()) == [("E4GHI", (f"/uploads/{SUBJECT}/*",))]


async def test_what_was_refused_and_is_removed_by_a_later_round_is_told_too(
    with_catalog: MakeWorld,
) -> None:
    world = await with_catalog(DISTRIBUTION, plain=COUNTED)
    await world.write(COUNTED_INDEX)
    world.put("uploads", PICTURE)
    await world.sketch(0, option={"bucket": world.buckets["uploads"], "key": PICTURE})
    await world.accept(world.requested())
    edges = Edges()
    eraser = eraser_with(world, edges)
    delete = eraser.batches.delete

    async def refused(intent: Any) -> Deletion:
        if intent.if_unreferenced:
            return Deletion(gone=frozenset(), failed=dict.fromkeys(intent.refs, "AccessDenied"))
        return await delete(intent)

    put_in(eraser.batches, "delete", refused)
    await eraser.until_idle()
    assert await world.state() == "erased"
    assert PICTURE in world.keys("uploads")
    assert ("E3DEF", (f"/{PICTURE}",)) not in edges.created.values()
    put_in(eraser.batches, "delete", delete)
    await world.sketch(1, option={})
    for _ in range(2):
        await once_more(world, eraser)
    assert PICTURE not in world.keys("uploads")
    assert ("E3DEF", (f"/{PICTURE}",)) in edges.created.values()
    told = len(edges.calls)
    edges.finish()
    assert await once_more(world, eraser) == "verified"
    assert len(edges.calls) == told
