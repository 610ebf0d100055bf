"""Nothing of aiokafka's clients is left behind, whenever their start is given up."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from lethe_outbox.kafka.clients import started, stopped
from lethe_outbox.kafka.topics import partition_counts


async def consume(bootstrap: str) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    try:
        await started(consumer)
    finally:
        await stopped(consumer)


async def count(bootstrap: str) -> None:
    await partition_counts(bootstrap, ["any"])


@pytest.mark.parametrize("work", [consume, count])
async def test_a_start_that_is_cancelled_leaves_no_connection_open(
    kafka: str, monkeypatch: pytest.MonkeyPatch, work: Any
) -> None:
    """Amid the first question for the cluster: aiokafka alone knows that connection."""
    opened: list[AIOKafkaConnection] = []
    asking = asyncio.Event()
    real = AIOKafkaConnection.send

    def send(self: AIOKafkaConnection, request: Any, *rest: Any, **more: Any) -> Awaitable[Any]:
        opened.append(self)
        if isinstance(request, MetadataRequest):
            asking.set()
        answer: Awaitable[Any] = real(self, request, *rest, **more)
        return answer

    monkeypatch.setattr(AIOKafkaConnection, "send", send)
    working = asyncio.create_task(work(kafka))
    await asyncio.wait_for(asking.wait(), 20)
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    assert opened
    assert not [one for one in opened if one.connected()]
