"""A dead letter that cannot be sent is told as Kafka's, whatever was broken underneath."""

import asyncio
import sys
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

from lethe_outbox.kafka.dead_letter_topic import DeadLetterProducer

# A function of the package has the same name.
MODULE = sys.modules[DeadLetterProducer.__module__]


class Broken:
    """A producer that connects never, or to nothing."""

    raised: Exception | None = None

    def __init__(self, **_: Any) -> None:
        pass

    async def start(self) -> None:
        if self.raised is not None:
            raise self.raised
        await asyncio.Event().wait()

    async def stop(self) -> None:
        pass


async def test_silent_brokers_are_told_as_kafkas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "AIOKafkaProducer", Broken)
    monkeypatch.setattr(MODULE, "_DEADLINE_SECONDS", 0.01)
    with pytest.raises(KafkaTimeoutError, match="do not answer"):
        await DeadLetterProducer("nowhere:1").send("t.DLT", b"k", b"v", [])


async def test_a_broken_connection_is_told_as_kafkas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "AIOKafkaProducer", Broken)
    monkeypatch.setattr(Broken, "raised", ConnectionResetError())
    with pytest.raises(KafkaConnectionError, match="cannot be reached"):
        await DeadLetterProducer("nowhere:1").send("t.DLT", b"k", b"v", [])
