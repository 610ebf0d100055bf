"""An eraser that was frozen while another took its job changes nothing more."""

import asyncio
from typing import Any

import pytest

from lethe_eraser.storage.jobs import TakenOverError
from lethe_eraser.storage.journal import Intent
from tests.integration.eraser.world import (
    NOTHING,
    SUBJECT,
    World,
    put_in,
    to_the_end,
    until_begun,
)


@pytest.mark.parametrize("step", ["collect", "intend", "delete", "mask"])
async def test_the_one_that_was_taken_over_commits_nothing(world: World, step: str) -> None:
    for number in range(4):
        await world.sketch(number)
    await world.accept(world.requested())
    frozen = world.eraser(batch_rows=2)
    at_the_step, go_on = asyncio.Event(), asyncio.Event()
    real = getattr(frozen.batches, step)

    async def freeze(*args: Any, **kwargs: Any) -> Any:
        at_the_step.set()
        await go_on.wait()
        return await real(*args, **kwargs)

    put_in(frozen.batches, step, freeze)
    running = asyncio.create_task(frozen.until_idle())
    await at_the_step.wait()
    if step in {"delete", "mask"}:
        # The next batch is begun meanwhile; then everything stands still.
        await until_begun(world, 2)
    assert await world.value("select generation from lethe.job") == 1

    assert await to_the_end(world, world.eraser(batch_rows=2)) == "verified"
    assert await world.value("select generation from lethe.job") == 2
    product, said = await world.product(), await world.said()
    job = await world.rows("select * from lethe.job")
    go_on.set()
    await running

    assert await world.product() == product
    assert await world.said() == said
    assert await world.rows("select * from lethe.job") == job
    assert await world.left_of(SUBJECT) == NOTHING


async def test_two_that_read_the_same_generation_do_not_both_commit(world: World) -> None:
    """A takes the job; B takes it over after A's delete; B masks; then A tries to."""
    await world.sketch(1)
    await world.accept(world.requested())
    first, second = world.eraser(), world.eraser()
    deleted, taken_over = asyncio.Event(), asyncio.Event()
    real = first.batches.mask
    outcome: list[BaseException] = []

    async def wait_then_mask(job: Any, intent: Intent, gone: Any) -> Any:
        deleted.set()
        await taken_over.wait()
        try:
            return await real(job, intent, gone)
        except TakenOverError as error:
            outcome.append(error)
            raise

    put_in(first.batches, "mask", wait_then_mask)
    running = asyncio.create_task(first.until_idle())
    await deleted.wait()
    assert await to_the_end(world, second) == "verified"
    totals = (await world.said())[-1].event.totals
    taken_over.set()
    await running
    assert len(outcome) == 1
    assert (await world.said())[-1].event.totals == totals
    assert totals["sketch"].objects_gone == 2


async def test_a_job_that_was_taken_over_is_left_to_the_other(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    frozen = world.eraser()
    real = frozen.batches.collect

    async def taken_meanwhile(*args: Any) -> Any:
        await world.write("update lethe.job set generation = generation + 1")
        return await real(*args)

    put_in(frozen.batches, "collect", taken_meanwhile)
    await frozen.until_idle()
    assert await world.value("select generation from lethe.job") == 2
    assert await world.state() == "running"
    assert await to_the_end(world, world.eraser()) == "verified"


async def test_only_jobs_of_assigned_buckets_are_taken(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    bucket = await world.value("select bucket from lethe.job")
    eraser = world.eraser()
    eraser.assignment.assign(set(range(16)) - {bucket % 16})
    await eraser.until_idle()
    assert await world.state() == "accepted"
    eraser.assignment.assign({bucket % 16})
    await eraser.until_idle()
    assert await world.state() == "verified"
