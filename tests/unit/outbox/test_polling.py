"""A rebalance amid a batch neither turns its records round nor loses one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import ConsumerMetrics
from lethe_outbox.polling import Done, GroupPoller, PollSettings, Progress

PARTITION = TopicPartition("topic", 0)
STEP = 64


@dataclass(frozen=True, slots=True)
class Consumed:
    offset: int
    serialized_key_size: int = 1
    serialized_value_size: int = 1


class Rebalancing:
    """Stands for a consumer that goes back to what is committed whenever a rebalance gets through.

    A rebalance begins while the second step of a batch is taken, as it does in the background.
    """

    def __init__(self) -> None:
        self.poller: GroupPoller | None = None
        self.position = STEP
        self.committed = 0
        self.steps = 0
        self.rebalance: asyncio.Task[None] | None = None
        self._subscription = SimpleNamespace(
            subscription=SimpleNamespace(
                assignment=SimpleNamespace(state_value=lambda _partition: None)
            )
        )

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Consumed]]:
        del timeout_ms
        self.steps += 1
        if self.steps == 2:
            self.rebalance = asyncio.create_task(self._rebalance())
            for _ in range(5):
                await asyncio.sleep(0)
        taken = [Consumed(self.position + number) for number in range(max_records)]
        self.position += max_records
        return {PARTITION: taken}

    async def _rebalance(self) -> None:
        assert self.poller is not None
        await self.poller.on_partitions_revoked([PARTITION])
        self.position = self.committed

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.committed = offsets[PARTITION]

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset([PARTITION])

    def highwater(self, partition: TopicPartition) -> None:
        del partition


async def test_a_rebalance_waits_for_the_batch_that_is_being_taken() -> None:
    batches: list[list[int]] = []

    async def work(
        polled: Mapping[TopicPartition, Sequence[Any]],
    ) -> Mapping[TopicPartition, Progress]:
        batches.append([one.offset for one in polled[PARTITION]])
        return {PARTITION: Done(polled[PARTITION][-1].offset + 1)}

    consumer = Rebalancing()
    consumer.poller = GroupPoller(
        "nowhere:9",
        "group",
        ["topic"],
        work,
        ConsumerMetrics(CollectorRegistry()),
        settings=PollSettings(batch_records=3 * STEP),
    )
    for _ in range(3):
        await consumer.poller._poll(consumer)
    assert consumer.rebalance is not None
    await consumer.rebalance
    handled = [offset for batch in batches for offset in batch]
    assert handled == sorted(set(handled)), "later records before earlier ones"
