"""The rows that all persons together are masked per second, on a clock of the test's."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

from hypothesis import given
from hypothesis import strategies as st

from lethe_eraser.pace import LOOK_SECONDS, RowBudget

Step = Callable[[], Awaitable[None]]


@dataclass
class Time:
    """Everybody who sleeps wakes in the order of when, as on a real clock."""

    now: float = 100.0
    waited: list[float] = field(default_factory=list)
    sleeping: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    def budget(self, rate: float = 10) -> RowBudget:
        return RowBudget(
            rate, on_waited=self.waited.append, clock=lambda: self.now, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleeping.append((self.now + seconds, wake))
        await wake

    async def run(self, *steps: Awaitable[None]) -> None:
        tasks = [asyncio.ensure_future(step) for step in steps]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            if not all(task.done() for task in tasks) and self.sleeping:
                self.sleeping.sort(key=lambda one: one[0])
                self.now, wake = self.sleeping.pop(0)
                wake.set_result(None)
        await asyncio.gather(*tasks)


def always() -> bool:
    return True


async def test_the_first_begins_at_once_and_the_next_when_it_is_paid_for() -> None:
    time = Time()
    budget = time.budget()
    began: list[float] = []

    async def batches() -> None:
        for rows in (25, 5, 10):
            assert await budget.take(rows, always)
            began.append(time.now)

    await time.run(batches())
    assert began == [100.0, 102.5, 103.0]
    assert time.waited == [2.5, 0.5]


async def test_what_was_not_used_is_not_saved_up() -> None:
    time = Time()
    budget = time.budget()
    assert await budget.take(10, always)
    assert budget.is_spent
    time.now += 60
    assert not budget.is_spent
    assert await budget.take(10, always)
    assert budget.is_spent
    assert time.waited == []


async def test_who_is_told_to_stop_waits_no_longer_than_a_look_and_gives_the_rows_back() -> None:
    time = Time()
    budget = time.budget(rate=0.001)
    assert await budget.take(1, always)
    answers = iter([True, False])

    async def stopped() -> None:
        assert not await budget.take(1, lambda: next(answers))

    await time.run(stopped())
    assert time.waited == [LOOK_SECONDS]
    time.now = 100 + 1000
    assert not budget.is_spent, "only the first one's rows were paid for"


async def test_who_may_not_begin_takes_nothing() -> None:
    budget = Time().budget()
    assert not await budget.take(1000, lambda: False)
    assert not budget.is_spent


async def test_it_is_asked_again_when_the_turn_has_come() -> None:
    time = Time()
    budget = time.budget()
    assert await budget.take(1, always)

    async def late() -> None:
        assert not await budget.take(1, lambda: time.now < 100.1)

    await time.run(late())


async def test_who_is_cancelled_gives_the_rows_back() -> None:
    time = Time()
    budget = time.budget()
    assert await budget.take(10, always)
    waiting = asyncio.ensure_future(budget.take(1000, always))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    time.now += 1
    assert not budget.is_spent


@given(
    st.lists(
        st.lists(st.integers(min_value=0, max_value=40), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_in_any_stretch_of_time_no_more_begins_than_the_budget_and_a_batch(
    people: list[list[int]],
) -> None:
    time = Time()
    began: list[tuple[float, int]] = []

    async def everybody() -> None:
        budget = time.budget()

        async def person(batches: list[int]) -> None:
            for rows in batches:
                assert await budget.take(rows, always)
                began.append((time.now, rows))

        await time.run(*(person(batches) for batches in people))

    asyncio.run(everybody())
    assert len(began) == sum(map(len, people))
    for first, last in combinations_with_replacement(range(len(began)), 2):
        stretch = began[first : last + 1]
        allowed = 10 * (stretch[-1][0] - stretch[0][0]) + max(rows for _, rows in stretch)
        assert sum(rows for _, rows in stretch) <= allowed + 1e-6
