"""A manifest that the product writes anew while we erase: what it names then goes, too."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lethe_contracts.events import TypeTotals
from lethe_eraser.storage.journal import Intent
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.world import (
    NOTHING,
    SUBJECT,
    Killed,
    World,
    make_catalog,
    open_store,
    put_in,
    to_the_end,
)
from tests.support.factories import BucketFactory

MANIFEST = f"manifests/{SUBJECT}-1.json"
STILL_THERE = {**NOTHING, "manifest": 1, "client": 1}


@pytest.fixture(params=["versions", "no versions"])
async def extraction(
    request: pytest.FixtureRequest,
    world: World,
    s3: S3Address,
    bucket: BucketFactory,
    tmp_path: Path,
) -> AsyncIterator[World]:
    """A person with one document of two files, in a bucket that keeps versions or does not."""
    if request.param == "no versions":
        world.buckets = {**world.buckets, "documents": bucket()}
        world.catalog = make_catalog(tmp_path, world.buckets)
    async with open_store(s3, world.catalog) as store:
        world.store = store
        await world.document(1)
        await world.accept(world.requested())
        yield world


def write_anew(world: World, name: str = "new") -> None:
    """Extract again, as the product does: the files first, then the manifest."""
    key = f"files/{SUBJECT}/1/{name}.png"
    world.put("documents", key)
    world.put("documents", MANIFEST, json.dumps({"fileKeyList": [key]}).encode())


def once(act: Callable[[], None], step: Callable[..., Awaitable[Any]], *, after: bool) -> Any:
    """Let `act` happen before or after the first call of `step`."""
    done: list[bool] = []

    async def call(*args: Any) -> Any:
        if not done and not after:
            done.append(True)
            act()
        result = await step(*args)
        if not done:
            done.append(True)
            act()
        return result

    return call


@pytest.mark.parametrize("after", [False, True], ids=["before the delete", "after the delete"])
async def test_written_anew_before_the_row_is_masked(extraction: World, after: bool) -> None:  # noqa: FBT001  # a parameter of pytest's
    world, eraser = extraction, extraction.eraser()
    put_in(
        eraser.batches,
        "delete",
        once(lambda: write_anew(world), eraser.batches.delete, after=after),
    )
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert await world.value("select round from lethe.job") == 2
    assert (await world.said())[-1].event.totals["document"] == TypeTotals(
        feature_rows=1, client_rows=1, objects_gone=4
    )


async def test_written_anew_after_the_row_was_masked(extraction: World) -> None:
    """Its row leads to nothing any more: the verification reads it."""
    world, eraser = extraction, extraction.eraser()
    put_in(
        eraser.verification,
        "scan",
        once(lambda: write_anew(world), eraser.verification.scan, after=False),
    )
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert await world.value("select round from lethe.job") == 2


async def test_written_anew_while_nobody_ran_between_delete_and_mask(extraction: World) -> None:
    world, dying = extraction, extraction.eraser()
    real = dying.batches.delete

    async def killed(intent: Intent) -> Any:
        await real(intent)
        raise Killed

    put_in(dying.batches, "delete", killed)
    with pytest.raises(Killed):
        await dying.until_idle()
    write_anew(world)
    assert await to_the_end(world, world.eraser()) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


async def test_written_anew_where_it_was_gone_by_our_own_delete(extraction: World) -> None:
    """The row changed after the delete, so the next round masks it without its manifest."""
    world, eraser = extraction, extraction.eraser()
    real = eraser.batches.delete
    calls: list[Intent] = []

    async def delete(intent: Intent) -> Any:
        calls.append(intent)
        if len(calls) == 2:
            assert not intent.rows[0].delete
            write_anew(world)
        deletion = await real(intent)
        if len(calls) == 1:
            await world.write("update document set title = 'new'")
        return deletion

    put_in(eraser.batches, "delete", delete)
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert await world.value("select round from lethe.job") == 3


async def test_written_anew_again_and_again_the_row_is_left_and_said_why(
    extraction: World,
) -> None:
    world, eraser = extraction, extraction.eraser()
    real = eraser.batches.delete
    calls: list[Intent] = []

    async def delete(intent: Intent) -> Any:
        calls.append(intent)
        write_anew(world, f"new-{len(calls)}")
        return await real(intent)

    put_in(eraser.batches, "delete", delete)
    assert await to_the_end(world, eraser) == "blocked"
    assert await world.value("select reasons from lethe.job") == {"still_writing": 1}
    left = await world.left_of(SUBJECT)
    # The last manifest and what it names.
    assert left == {**STILL_THERE, "objects": 2}
    # What blocked it is over, and the person is asked for again.
    put_in(eraser.batches, "delete", real)
    await world.accept(world.requested(attempt=2))
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


@pytest.mark.parametrize("once_more", [False, True], ids=["for good", "until it is mended"])
async def test_written_anew_after_its_row_was_masked_so_that_nobody_can_read_it(
    extraction: World,
    once_more: bool,  # noqa: FBT001  # a parameter of pytest's
) -> None:
    """Deleting it would lose what it names; a later one that can be read says more."""
    world, eraser = extraction, extraction.eraser()
    scan = eraser.verification.scan
    calls: list[bool] = []

    async def scanned(*args: Any) -> Any:
        calls.append(True)
        if len(calls) == 1:
            world.put("documents", MANIFEST, b"[")
        if len(calls) == 2 and once_more:
            write_anew(world)
        return await scan(*args)

    put_in(eraser.verification, "scan", scanned)
    assert await to_the_end(world, eraser) == ("verified" if once_more else "blocked")
    reasons = await world.value("select reasons from lethe.job")
    assert reasons == ({} if once_more else {"manifest_invalid": 1})
    assert await world.left_of(SUBJECT) == {**NOTHING, "objects": 0 if once_more else 1}
