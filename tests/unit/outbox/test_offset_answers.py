"""A coordinator that is not ready says nothing of offsets: it is asked again (aiokafka 0.14)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupAuthorizationFailedError
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from lethe_outbox.kafka.offset_answers import hearing_refusals

TOPIC, GROUP = "orders.v1", "orders"
NOT_COORDINATOR, LOADING, NOT_ALLOWED = 16, 14, 30


def refusal(code: int) -> OffsetFetchResponse_v3:
    """Answer as a real broker does (4.1): no topic, and the error beside the list."""
    return OffsetFetchResponse_v3(0, [], code)


def offset(number: int) -> OffsetFetchResponse_v3:
    return OffsetFetchResponse_v3(0, [(TOPIC, [(0, number, "", 0)])], 0)


@pytest.fixture
async def consumer() -> AsyncIterator[AIOKafkaConsumer]:
    """Give a consumer that was never started."""
    made = AIOKafkaConsumer(bootstrap_servers="nowhere:9092", group_id=GROUP, retry_backoff_ms=1)
    yield made
    await made.stop()


async def asked(
    consumer: AIOKafkaConsumer, answers: Iterator[Any], monkeypatch: pytest.MonkeyPatch
) -> int | None:
    """Fetch the group's offset of one partition from a broker that answers so, in order."""

    async def send(_node: int, _request: Any, **_how: Any) -> Any:
        return next(answers)

    async def known(coordinator: GroupCoordinator) -> None:
        coordinator.coordinator_id = 1
        coordinator._coordinator_dead_fut = asyncio.get_running_loop().create_future()

    monkeypatch.setattr(consumer._client, "send", send)
    monkeypatch.setattr(GroupCoordinator, "ensure_coordinator_known", known)
    hearing_refusals(consumer)
    coordinator = GroupCoordinator(
        consumer._client, consumer._subscription, group_id=GROUP, retry_backoff_ms=1
    )
    try:
        partition = TopicPartition(TOPIC, 0)
        found = await coordinator.fetch_committed_offsets([partition])
    finally:
        await coordinator.close()
    return found[partition].offset if partition in found else None


async def test_a_coordinator_that_moves_or_loads_is_asked_again(
    consumer: AIOKafkaConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([refusal(NOT_COORDINATOR), refusal(LOADING), offset(42)])
    assert await asked(consumer, answers, monkeypatch) == 42


async def test_an_offset_that_is_not_there_is_not_there(
    consumer: AIOKafkaConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await asked(consumer, iter([offset(-1)]), monkeypatch) is None


async def test_a_group_that_may_not_be_read_is_no_group_without_offsets(
    consumer: AIOKafkaConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GroupAuthorizationFailedError):
        await asked(consumer, iter([refusal(NOT_ALLOWED)]), monkeypatch)
