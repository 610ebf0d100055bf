"""What is asked before a request leaves for a broker."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from aiokafka.structs import TopicPartition

from lethe_outbox.relay.producer import Producer
from lethe_outbox.relay.settings import RelaySettings

PLACE = TopicPartition("t", 0)


async def left(lease: list[bool], connect: Callable[[int], Awaitable[bool]]) -> list[Any]:
    """Let a batch leave while `lease` is not empty; gives the requests, none of which is open."""
    sent: list[Any] = []
    ended: list[Exception] = []

    async def send(*request: Any) -> None:
        sent.append(request)

    sender: Any = SimpleNamespace(_send_produce_req=send, _muted_partitions={PLACE}, _in_flight={1})
    kafka: Any = SimpleNamespace(_sender=sender, client=SimpleNamespace(ready=connect))
    producer = Producer(kafka, RelaySettings())
    builder: Any = type("Builder", (), {})()
    producer._may_leave[builder] = lambda: bool(lease)
    batch = SimpleNamespace(_builder=builder, failure=ended.append)
    await sender._send_produce_req(1, {PLACE: batch})
    assert len(ended) == (not sent)
    assert bool(sender._muted_partitions) is bool(sender._in_flight) is bool(sent)
    return sent


async def test_the_lease_is_asked_for_once_the_broker_is_connected() -> None:
    """A process may be frozen while it connects; what leaves after that is late."""
    lease = [True]

    async def connected(node: int) -> bool:
        del node
        lease.clear()
        return True

    assert await left(lease, connected) == []


async def test_what_is_late_already_connects_to_nobody() -> None:
    """Its producer may be closed, and nobody would end that connection."""
    nodes: list[int] = []

    async def connected(node: int) -> bool:
        nodes.append(node)
        return True

    assert await left([], connected) == []
    assert nodes == []
    assert len(await left([True], connected)) == 1
    assert nodes == [1]


async def test_what_an_ending_producer_connects_anew_is_closed() -> None:
    """aiokafka's sender awaits its requests when it is cancelled, and they connect."""
    connected = ["before"]

    async def close() -> None:
        connected.clear()

    async def send() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            connected.append("meanwhile")

    sending = asyncio.create_task(send())
    await asyncio.sleep(0)
    accumulator = Mock(_batches={}, _pending_batches=set())
    sender = SimpleNamespace(_send_produce_req=None, sender_task=sending)
    kafka: Any = SimpleNamespace(
        _sender=sender, client=SimpleNamespace(close=close), _message_accumulator=accumulator
    )
    await Producer(kafka, RelaySettings()).abort()
    assert sending.done()
    assert connected == []
