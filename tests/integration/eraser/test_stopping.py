"""Where the window ends or SIGTERM comes: what was begun is finished, and nothing more begins."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lethe_eraser.settings import EraserSettings
from lethe_eraser.window import Window
from tests.integration.eraser.world import World, put_in, until_begun

HEAVY = 8
"""Batches of a person who would take far longer than what is left of the window."""

End = Callable[[World, asyncio.Event], None]


def window_ends(world: World, stop: asyncio.Event) -> None:
    del stop
    world.clock.now += timedelta(hours=5)


def sigterm(world: World, stop: asyncio.Event) -> None:
    del world
    stop.set()


@pytest.mark.parametrize("end", [window_ends, sigterm])
async def test_what_was_begun_is_finished_and_nothing_more_begins(world: World, end: End) -> None:
    for number in range(HEAVY):
        await world.sketch(number)
    world.window = Window.parse("01:00-05:00", "UTC")
    world.clock.now = world.clock.now.replace(hour=4)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)
    inside, go_on = asyncio.Event(), asyncio.Event()
    real = eraser.batches.delete

    async def delete(intent: Any) -> Any:
        inside.set()
        await go_on.wait()
        return await real(intent)

    put_in(eraser.batches, "delete", delete)
    stop = asyncio.Event()
    working = asyncio.create_task(eraser.executor.run_next(stop))
    await inside.wait()
    # As many as may be under way are; the executor waits for S3.
    await until_begun(world, 2)
    begun = await world.value("select count(*) from lethe.journal")
    end(world, stop)
    go_on.set()
    # The deadline that the process sets itself; it is killed after it.
    allowed = EraserSettings.model_fields["drain_seconds"].default
    assert await asyncio.wait_for(working, allowed)

    assert await world.value("select count(*) from lethe.journal") == begun
    assert await world.value("select count(*) from lethe.journal where not masked") == 0
    assert await world.value("select count(*) from sketch_task where result = '{}'") == begun
    assert 0 < begun < HEAVY
    assert await world.state() == "running"
    assert not await eraser.executor.run_next(stop), "nobody is taken any more"
