"""The eraser dies at any step of any batch; the next one ends with the person erased once."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lethe_contracts.events import BatchErased, TypeTotals
from lethe_eraser.storage.journal import Intent
from tests.integration.eraser.world import (
    NOTHING,
    OTHER,
    SUBJECT,
    Eraser,
    Killed,
    World,
    put_in,
    to_the_end,
)

Step = Callable[..., Awaitable[Any]]

EXPECTED = {
    "sketch": TypeTotals(feature_rows=4, task_rows=4, client_rows=4, objects_gone=8),
    "document": TypeTotals(feature_rows=2, client_rows=2, objects_gone=6),
}


def before(step: Step) -> Step:
    async def die(*_: Any, **__: Any) -> Any:
        raise Killed

    del step
    return die


def after(step: Step) -> Step:
    async def run_and_die(*args: Any, **kwargs: Any) -> Any:
        await step(*args, **kwargs)
        raise Killed

    return run_and_die


def at_call(number: int, step: Step, fault: Callable[[Step], Step]) -> Step:
    """Let `step` work but for its call `number` (from 1)."""
    calls = Counter[str]()

    async def call(*args: Any, **kwargs: Any) -> Any:
        calls["all"] += 1
        chosen = fault(step) if calls["all"] == number else step
        return await chosen(*args, **kwargs)

    return call


def in_the_middle_of_deleting(eraser: Eraser) -> Callable[[Step], Step]:
    def fault(_step: Step) -> Step:
        async def half(intent: Intent) -> Any:
            refs = intent.refs
            await eraser.batches._objects.delete(refs[: len(refs) // 2])
            raise Killed

        return half

    return fault


def in_the_middle_of_masking(eraser: Eraser) -> Callable[[Step], Step]:
    """Die after the rows were masked and before the commit."""

    def fault(step: Step) -> Step:
        async def masked_not_committed(*args: Any, **kwargs: Any) -> Any:
            put_in(eraser.batches, "_advance", before(eraser.batches._advance))
            return await step(*args, **kwargs)

        return masked_not_committed

    return fault


FAULTS: dict[str, tuple[str, Callable[[Eraser], Callable[[Step], Step]]]] = {
    "before collecting": ("collect", lambda _: before),
    "between collecting and intent": ("collect", lambda _: after),
    "between intent and S3": ("intend", lambda _: after),
    "half way through S3": ("delete", in_the_middle_of_deleting),
    "between S3 and mask": ("delete", lambda _: after),
    "between mask and commit": ("mask", in_the_middle_of_masking),
    "after the commit": ("mask", lambda _: after),
}


async def people(world: World) -> None:
    for number in range(4):
        await world.sketch(number, source="client" if number % 2 else "client_old")
    await world.document(1)
    await world.document(2)
    await world.sketch(1, subject=OTHER)


async def assert_erased_once(world: World) -> None:
    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.left_of(OTHER))["objects"] == 2
    said = await world.said()
    assert [one.sequence for one in said] == list(range(1, len(said) + 1))
    assert said[-1].event.name == "verified"
    assert said[-1].event.totals == EXPECTED
    batches = [one.event.batch for one in said if isinstance(one.event, BatchErased)]
    assert batches == sorted(set(batches))


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
async def test_killed_and_taken_up_by_another(world: World, fault: str, call: int) -> None:
    await people(world)
    await world.accept(world.requested())
    dying = world.eraser(batch_rows=2)
    name, make = FAULTS[fault]
    put_in(dying.batches, name, at_call(call, getattr(dying.batches, name), make(dying)))
    with pytest.raises(Killed):
        await dying.until_idle()
    assert await to_the_end(world, world.eraser(batch_rows=2)) == "verified"
    await assert_erased_once(world)


async def test_killed_again_and_again(world: World) -> None:
    await people(world)
    await world.accept(world.requested())
    for fault in FAULTS.values():
        dying = world.eraser(batch_rows=1)
        name, make = fault
        put_in(dying.batches, name, at_call(1, getattr(dying.batches, name), make(dying)))
        with pytest.raises(Killed):
            await dying.until_idle()
    assert await to_the_end(world, world.eraser(batch_rows=1)) == "verified"
    await assert_erased_once(world)


async def test_a_row_that_changed_while_the_eraser_was_dead_loses_no_object(world: World) -> None:
    feature = await world.sketch(1)
    await world.accept(world.requested())
    dying = world.eraser()
    put_in(dying.batches, "delete", before(dying.batches.delete))
    with pytest.raises(Killed):
        await dying.until_idle()
    # The product replaces the result: the first object is named by nothing but the journal now.
    world.put("results", f"public/{SUBJECT}-new.png")
    await world.write(
        "update sketch_task set result = :r where feature_id = :f",
        r=json.dumps({"url": f"https://cdn.test.example/{SUBJECT}-new.png"}),
        f=feature,
    )
    assert await to_the_end(world, world.eraser()) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.said())[-1].event.totals["sketch"] == TypeTotals(
        feature_rows=1, task_rows=1, client_rows=1, objects_gone=3
    )


async def test_a_row_that_changes_between_delete_and_mask_waits_for_the_next_round(
    world: World,
) -> None:
    feature = await world.sketch(1)
    row = await world.document(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.batches.delete
    touched: list[int] = []

    async def touch(intent: Intent) -> Any:
        gone = await real(intent)
        if not touched:
            touched.append(1)
            await world.write("update sketch_feature set status = 'x' where id = :i", i=feature)
            await world.write("update document set title = 'new' where id = :i", i=row)
        return gone

    put_in(eraser.batches, "delete", touch)
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert await world.value("select round from lethe.job") == 2
    assert (await world.said())[-1].event.totals == {
        "sketch": TypeTotals(feature_rows=1, task_rows=1, client_rows=1, objects_gone=2),
        "document": TypeTotals(feature_rows=1, client_rows=1, objects_gone=3),
    }


@pytest.mark.parametrize("step", ["scan", "conclude"])
@pytest.mark.parametrize("fault", [before, after])
async def test_killed_while_verifying(
    world: World, step: str, fault: Callable[[Step], Step]
) -> None:
    await people(world)
    await world.accept(world.requested())
    dying = world.eraser()
    put_in(dying.verification, step, fault(getattr(dying.verification, step)))
    with pytest.raises(Killed):
        await dying.until_idle()
    assert await to_the_end(world, world.eraser()) == "verified"
    await assert_erased_once(world)
