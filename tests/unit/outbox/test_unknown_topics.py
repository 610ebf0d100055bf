"""For how long a topic may be unknown, before its rows count as refused."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lethe_outbox.relay import producer as seam
from lethe_outbox.relay.producer import Producer, TopicRefusedError
from lethe_outbox.relay.settings import RelaySettings

GRACE = RelaySettings().unknown_topic_seconds


class Broker:
    """Tells what it knows at each refresh; a refresh takes a second, if not told otherwise."""

    unauthorized_topics: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.now = 0.0
        self.refresh_seconds = 1.0
        self.refreshed = 0
        self.known: dict[str, set[int]] = {}
        self.refreshes: list[dict[str, set[int]]] = []
        self.cluster = self

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.known.get(topic)

    def add_topic(self, topic: str) -> None:
        del topic

    async def force_metadata_update(self) -> bool:
        self.now += self.refresh_seconds
        self.refreshed += 1
        if self.refreshes:
            self.known = self.refreshes.pop(0)
        return True


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()

    async def sleep(seconds: float) -> None:
        broker.now += seconds

    monkeypatch.setattr(seam, "time", SimpleNamespace(monotonic=lambda: broker.now))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return broker


def connected(broker: Broker) -> Producer:
    sender = SimpleNamespace(_send_produce_req=None)
    kafka: Any = SimpleNamespace(client=broker, _sender=sender)
    return Producer(kafka, RelaySettings())


async def test_a_topic_that_was_known_again_has_its_whole_grace_the_next_time(
    broker: Broker,
) -> None:
    """It is looked for in vain, comes, found without looking, and goes much later."""
    producer = connected(broker)
    with pytest.raises(TopicRefusedError):
        await producer.partitions("t")
    broker.known = {"t": {0, 1}}
    assert await producer.partitions("t") == 2
    broker.known = {}
    broker.refreshes = [{}, {"t": {0, 1, 2}}]
    broker.now += 100 * GRACE
    assert await producer.partitions("t") == 3


async def test_a_topic_that_stays_unknown_is_waited_for_once(broker: Broker) -> None:
    producer = connected(broker)
    with pytest.raises(TopicRefusedError):
        await producer.partitions("t")
    assert GRACE < broker.now < GRACE + 2
    began = broker.now
    with pytest.raises(TopicRefusedError):
        await producer.partitions("t")
    assert broker.now == began + 1


async def test_a_topic_that_stays_unknown_is_looked_for_about_once_a_second(
    broker: Broker,
) -> None:
    """Each look leaves an error in the log."""
    broker.refresh_seconds = 0
    with pytest.raises(TopicRefusedError):
        await connected(broker).partitions("t")
    assert broker.refreshed <= GRACE + 3
