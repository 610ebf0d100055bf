"""aiokafka's known traps: each ends in a rebuilt producer, and nothing is lost or turned round."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.relay.producer import Producer
from tests.support.factories import TopicFactory
from tests.support.outbox_world import append_apart, drained, events, problems, running
from tests.support.relays import KEYS

Manager = Any
"""aiokafka's state of an idempotent producer."""

EPOCHS = 3
MOST_CALLS = 200


def skip_sequences(manager: Manager) -> None:
    for place in list(manager._sequence_numbers):
        manager._sequence_numbers[place] += 7


def grow_old(manager: Manager) -> None:
    """Become a later incarnation of this producer, which the broker takes note of."""
    now = manager._pid_and_epoch
    manager._pid_and_epoch = now._replace(epoch=now.epoch + EPOCHS)
    manager.earlier = manager._sequence_numbers.copy()
    manager._sequence_numbers.clear()


def be_young_again(manager: Manager) -> None:
    """Go on where the earlier incarnation stood: counting anew, a broker that did not hear of the
    later one in some partition takes new records for old ones, which nobody but this test does.
    """
    manager._sequence_numbers = manager.earlier
    now = manager._pid_and_epoch
    manager._pid_and_epoch = now._replace(epoch=now.epoch - EPOCHS)


SPOILING = {
    "OutOfOrderSequenceNumber": {20: skip_sequences},
    "ProducerFenced": {20: grow_old, 80: be_young_again},
}
"""By what the broker answers, however often it is asked: at which hand-over what is done."""


class Spoiled:
    """Hand over as always, but spoil the first producer's state before some of the calls."""

    def __init__(self, spoiling: Mapping[int, Callable[[Manager], None]]) -> None:
        self._spoiling = spoiling
        self.calls = 0
        self._hand_over = Producer.hand_over
        self.used: list[Producer] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoiled = self

        async def hand_over(producer: Producer, *arguments: Any) -> "asyncio.Future[Any]":
            if producer not in spoiled.used:
                spoiled.used.append(producer)
            spoiled.calls += 1
            if spoil := spoiled._spoiling.get(spoiled.calls):
                assert producer is spoiled.used[0]
                spoil(producer._kafka._txn_manager)
            return await spoiled._hand_over(producer, *arguments)

        monkeypatch.setattr(Producer, "hand_over", hand_over)


@pytest.mark.parametrize("answer", SPOILING)
async def test_a_producer_that_the_broker_will_not_hear_again_is_replaced(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    name = await topic()
    spoiled = Spoiled(SPOILING[answer])
    spoiled.install(monkeypatch)

    async def published_more() -> None:
        await append_apart(engine, *events(name, KEYS, 2))
        await drained(engine)

    async with running(database_url, kafka) as relay:
        # How many events go in one hand-over is the relay's affair.
        while ("kafka", "away", answer) not in relay.states:
            assert spoiled.calls < MOST_CALLS
            await published_more()
        await published_more()
        assert relay.value("relay_dead_lettered_total", topic=name) == 0
    # The next one is like the first: nothing took the way of what is refused.
    _, rebuilt = spoiled.used
    assert rebuilt._kafka._txn_manager is not None
    assert await problems(engine, kafka, [name]) == []
