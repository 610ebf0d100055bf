"""What a runner makes of a batch and of its handler's end, without servers."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lethe_outbox import ConsumerSettings, PoisonError, Record
from lethe_outbox.testing import MemoryBroker, MemoryConsumer

ID = b"01932c07-209f-7000-8000-000000000001"
ONCE = ConsumerSettings(attempts=1)


def sent(*values: bytes) -> MemoryBroker:
    """A broker whose records are all of one event."""
    broker = MemoryBroker("orders")
    for value in values:
        broker.send("orders", b"k", value, [("ce_id", ID)])
    return broker


async def test_of_one_event_in_a_batch_the_first_record_counts() -> None:
    seen: list[bytes | None] = []

    async def handle(_connection: Any, records: Sequence[Record]) -> None:
        seen.extend(record.value for record in records)

    broker = sent(b"first", b"second")
    assert await MemoryConsumer(broker, "shop", ["orders"], handle).consume() == 2
    assert seen == [b"first"]


async def test_a_dead_letter_names_what_the_poison_was_raised_from() -> None:
    async def handle(_connection: Any, records: Sequence[Record]) -> None:
        try:
            int(records[0].value or b"")
        except ValueError as error:
            raise PoisonError("not_a_number") from error

    broker = sent(b"x")
    await MemoryConsumer(broker, "shop", ["orders"], handle).consume()
    (dead,) = broker.dead_letters("orders")
    assert dead.header("error-class") == b"ValueError"


async def test_a_runner_that_is_cancelled_ends_and_buries_nothing() -> None:
    begun = asyncio.Event()

    async def handle(_connection: Any, _records: Sequence[Record]) -> None:
        begun.set()
        await asyncio.Event().wait()

    broker = sent(b"1")
    consumer = MemoryConsumer(broker, "shop", ["orders"], handle, settings=ONCE)
    consuming = asyncio.create_task(consumer.consume())
    await begun.wait()
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(consuming, 10)
    assert broker.dead_letters("orders") == []
