"""Who goes first with the real executor: nobody ordinary waits for the whole of somebody heavy."""

from typing import Any

from lethe_eraser.domain import TURN_BATCHES
from lethe_eraser.execute.pipeline import AT_ONCE
from tests.integration.eraser.world import SUBJECT, World, put_in, to_the_end

HEAVY = TURN_BATCHES + 6
ORDINARY = {"1.later": 4, "1.sooner": 2, "1.between": 3}
"""Days to the deadline; the heavy person is due before all of them."""


async def rows(world: World, subject: str, count: int) -> None:
    for number in range(count):
        key = f"uploads/{subject}/{number}.png"
        option = {"bucket": world.buckets["uploads"], "key": key}
        url = f"https://cdn.test.example/{subject}-{number}.png"
        await world.sketch(number, subject=subject, option=option, url=url)


async def test_ordinary_people_are_done_within_their_turns(world: World) -> None:
    await rows(world, SUBJECT, HEAVY)
    await world.accept(world.requested(days=1))
    for ref, days in ORDINARY.items():
        await rows(world, f"acct-{ref}", 2)
        event = world.requested(ref=ref, subject=f"acct-{ref}", days=days)
        await world.accept(event, ref=ref)
    eraser = world.eraser(batch_rows=1, concurrency=1)
    real = eraser.batches.mask

    async def mask(*args: Any) -> Any:
        after = await real(*args)
        # The loop beside the workers looks every second; here at every batch.
        await eraser.executor.look_ahead()
        return after

    put_in(eraser.batches, "mask", mask)
    assert await to_the_end(world, eraser) == "verified"
    said = await world.said()
    done = [one.subject_ref for one in said if one.event.name == "verified"]
    assert done[:-1] == sorted(ORDINARY, key=lambda ref: ORDINARY[ref])
    heavy = done[-1]
    last = max(n for n, one in enumerate(said) if one.subject_ref in ORDINARY)
    before = [one for one in said[:last] if one.subject_ref == heavy]
    turns = sum(one.event.name == "batch_erased" for one in before)
    assert TURN_BATCHES <= turns <= TURN_BATCHES + AT_ONCE
    assert await world.value("select count(*) from lethe.job where state <> 'verified'") == 0
