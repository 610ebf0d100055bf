"""What becomes of a partition after a batch of it was handled, or has to be tried again."""

from unittest.mock import AsyncMock, Mock

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from lethe_outbox.consumer.polling import Again, Done, GroupPoller, PollSettings, Progress
from lethe_outbox.metrics import ConsumerMetrics

PARTITION = TopicPartition("topic", 0)


async def settled(*reached: Progress, assigned: bool = True) -> tuple[Mock, GroupPoller]:
    """Give a consumer to whose partition this happened, and its poller."""
    consumer = Mock(assignment=lambda: {PARTITION} if assigned else set(), commit=AsyncMock())
    metrics = ConsumerMetrics(CollectorRegistry())
    poller = GroupPoller("nowhere:9", "group", ["topic"], Mock(), metrics, settings=PollSettings())
    for one in reached:
        await poller._settle(consumer, {PARTITION: one})
    return consumer, poller


async def test_a_partition_that_went_on_is_paused_as_the_first_time() -> None:
    _, failing = await settled(Again(0), Again(0))
    assert failing._pauses.paused[PARTITION].failures == 2
    _, stumbling = await settled(Again(0), Again(0), Done(1), Again(1))
    assert stumbling._pauses.paused[PARTITION].failures == 1


async def test_a_partition_that_is_somebody_elses_by_now_is_left_alone() -> None:
    consumer, _ = await settled(Done(1), Again(1), assigned=False)
    assert (consumer.seek.called, consumer.pause.called, consumer.commit.called) == (False,) * 3
