"""The budget of rows as an eraser keeps it, on a clock of the test's: nobody really waits."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from uuid import uuid4

import pytest

from lethe_contracts.events import Held
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.pace import LOOK_SECONDS, RowBudget
from lethe_eraser.verify import client_rows, rows, verification
from lethe_eraser.window import Window
from tests.integration.eraser.world import NOTHING, OTHER, REF, SUBJECT, Killed, World, put_in
from tests.support.waiting import until

RATE = 2
BATCH = 4
"""Rows of a batch of two client rows: a feature row and a task row of each."""

OTHER_REF = "1.0ther"


@dataclass
class Time:
    """A clock that only waiting moves, once whatever was begun is committed."""

    world: World
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    masked: list[tuple[float, int]] = field(default_factory=list)
    unmasked: int = 0
    """Batches that a crash left."""
    on_sleep: Callable[[], Awaitable[None]] | None = None

    def budget(self, rate: float = RATE) -> RowBudget:
        return RowBudget(rate, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        # Whoever waits with a connection in hand keeps this from ever being so.
        await until(self._is_quiet, what="nothing open while the budget is waited for")
        self.slept.append(seconds)
        self.now += seconds
        if self.on_sleep is not None:
            await self.on_sleep()

    async def _is_quiet(self) -> bool:
        if self.world.engine.pool.checkedout():  # type: ignore[attr-defined]  # a QueuePool has it
            return False
        begun = "select count(*) from lethe.journal where not masked"
        return bool(await self.world.value(begun) == self.unmasked)


@pytest.fixture
def time(world: World, monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time(world)
    real = EraserMetrics.rows

    def count(self: EraserMetrics, table_kind: str, request_type: str, count: int) -> None:
        real(self, table_kind, request_type, count)
        time.masked.append((time.now, count))

    monkeypatch.setattr(EraserMetrics, "rows", count)
    return time


@pytest.mark.parametrize(
    ("at_once", "most"), [(2, BATCH), (2000, 6)], ids=["in chunks", "at the end"]
)
async def test_all_persons_together_are_masked_no_faster_than_the_budget(
    world: World, time: Time, monkeypatch: pytest.MonkeyPatch, at_once: int, most: int
) -> None:
    """With a heavy person's client rows, and with an ordinary one's."""
    for module in (client_rows, rows, verification):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
    for number in range(6):
        await world.sketch(number)
        await world.sketch(number, subject=OTHER)
    await world.accept(world.requested())
    await world.accept(world.requested(ref=OTHER_REF, subject=OTHER), ref=OTHER_REF)
    eraser = world.eraser(batch_rows=2, budget=time.budget())
    await asyncio.gather(eraser.until_idle(), eraser.until_idle())
    assert [row.state for row in await world.rows("select state from lethe.job")] == [
        "verified",
        "verified",
    ]
    assert await world.left_of(SUBJECT) == await world.left_of(OTHER) == NOTHING
    total = sum(count for _, count in time.masked)
    assert total == 12 * 3
    # The last batch is not paid for when it begins.
    so_far = accumulate(count for _, count in time.masked)
    assert all(
        count <= RATE * now + most for (now, _), count in zip(time.masked, so_far, strict=True)
    )


async def sigterm(world: World, stop: asyncio.Event) -> None:
    del world
    stop.set()


async def window_ends(world: World, stop: asyncio.Event) -> None:
    del stop
    world.clock.now += timedelta(hours=5)


@pytest.mark.parametrize("end", [sigterm, window_ends])
async def test_a_stop_does_not_wait_for_the_budget(
    world: World, time: Time, end: Callable[[World, asyncio.Event], Awaitable[None]]
) -> None:
    for number in range(4):
        await world.sketch(number)
    world.window = Window.parse("01:00-05:00", "UTC")
    world.clock.now = world.clock.now.replace(hour=4)
    await world.accept(world.requested())
    stop = asyncio.Event()
    time.on_sleep = lambda: end(world, stop)
    eraser = world.eraser(batch_rows=1, budget=time.budget(rate=0.001))
    assert await eraser.executor.run_next(stop)
    assert time.slept == [LOOK_SECONDS]
    assert await world.state() == "running"
    assert await world.value("select batches from lethe.job") == 1
    assert (await world.left_of(SUBJECT))["result"] == 3


async def test_a_hold_that_comes_while_the_budget_is_waited_for_stops_the_batch(
    world: World, time: Time
) -> None:
    for number in range(4):
        await world.sketch(number)
    await world.accept(world.requested())
    held = Held(hold_id=uuid4())

    async def hold() -> None:
        time.on_sleep = None
        await world.accept(held, ref=REF)

    time.on_sleep = hold
    eraser = world.eraser(batch_rows=1, budget=time.budget(rate=1))
    await eraser.executor.run_next(asyncio.Event())
    assert await world.state() == "held"
    assert await world.value("select batches from lethe.job") == 1
    assert (await world.left_of(SUBJECT))["result"] == 3
    assert (await world.names())[-1] == "hold_applied"


async def test_rows_of_a_batch_that_a_crash_left_are_taken_from_the_budget(
    world: World, time: Time
) -> None:
    for number in range(2):
        await world.sketch(number)
    await world.accept(world.requested())
    dying = world.eraser(batch_rows=2)

    async def killed(*_: object) -> None:
        raise Killed

    put_in(dying.batches, "mask", killed)
    with pytest.raises(Killed):
        await dying.until_idle()
    budget = time.budget(rate=0.001)
    eraser = world.eraser(batch_rows=2, budget=budget)
    stop = asyncio.Event()
    time.unmasked = 1
    time.on_sleep = lambda: sigterm(world, stop)
    assert await budget.take(1, lambda: True)
    await eraser.executor.run_next(stop)
    assert time.slept == [LOOK_SECONDS]
    assert await world.value("select count(*) from lethe.journal where not masked") == 1
