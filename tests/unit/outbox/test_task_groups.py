"""Handlers that work by several tasks: what a TaskGroup raises is judged by what is in it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from lethe_outbox import ConsumerSettings, PoisonError, Record
from lethe_outbox.testing import MemoryBroker, MemoryConsumer

ATTEMPTS = 3
Step = Callable[[], Awaitable[None]]


class BusyError(Exception):
    """An error that the user called transient."""


def failing(*errors: Exception) -> Step:
    """Two tasks at least, of which so many fail at the same moment."""

    async def fail(error: Exception) -> None:
        raise error

    async def step() -> None:
        async with asyncio.TaskGroup() as several:
            several.create_task(asyncio.sleep(0))
            for error in errors:
                several.create_task(fail(error))

    return step


def nested(step: Step) -> Step:
    async def outer() -> None:
        async with asyncio.TaskGroup() as several:
            several.create_task(asyncio.wait_for(step(), 10))

    return outer


async def consumed(step: Step) -> tuple[MemoryBroker, MemoryConsumer]:
    broker = MemoryBroker("orders")
    broker.send("orders", b"k", b"1", [("ce_id", b"01932c07-209f-7000-8000-000000000001")])

    async def handler(_connection: Any, _records: Sequence[Record]) -> None:
        await step()

    settings = ConsumerSettings(attempts=ATTEMPTS)
    return broker, MemoryConsumer(
        broker, "shop", ["orders"], handler, settings=settings, transient=(BusyError,)
    )


@pytest.mark.parametrize(
    "step",
    [
        failing(ConnectionError()),
        failing(ConnectionError(), BusyError()),
        nested(failing(BusyError())),
    ],
)
async def test_what_is_transient_in_all_its_parts_is_tried_for_ever(step: Step) -> None:
    broker, consumer = await consumed(step)
    for _ in range(ATTEMPTS + 2):
        assert await consumer.consume() == 0
    assert broker.dead_letters("orders") == []


@pytest.mark.parametrize(
    "step",
    [
        failing(PoisonError("of_the_test")),
        failing(ConnectionError(), PoisonError("of_the_test")),
        nested(failing(PoisonError("of_the_test"))),
    ],
)
async def test_poison_in_one_of_its_parts_is_poison_at_once(step: Step) -> None:
    broker, consumer = await consumed(step)
    assert await consumer.consume() == 1
    (dead,) = broker.dead_letters("orders")
    assert dead.header("error-reason") == b"of_the_test"
    assert dead.header("error-class") == b"PoisonError"


async def test_a_defect_beside_what_is_transient_is_a_defect() -> None:
    broker, consumer = await consumed(failing(ConnectionError(), KeyError()))
    for _ in range(ATTEMPTS):
        await consumer.consume()
    (dead,) = broker.dead_letters("orders")
    assert dead.header("error-reason") == b"handler_failed"
