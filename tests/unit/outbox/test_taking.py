"""How much is taken at a time: batches end by count or by bytes, whatever size records have."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from lethe_outbox.consumer.polling import PollSettings
from lethe_outbox.consumer.taking import Taker, share_of_partition

KIB = 1024
HERE = TopicPartition("t", 0)


class Buffer:
    """Stands in for a consumer whose buffer holds records of these sizes."""

    def __init__(self, sizes: Sequence[int], header: int = 0) -> None:
        self.left = list(sizes)
        self.header = header
        self.waited: list[int] = []

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Any]]:
        self.waited.append(timeout_ms)
        sizes, self.left = self.left[:max_records], self.left[max_records:]
        made = [
            SimpleNamespace(
                serialized_key_size=-1,
                serialized_value_size=one,
                headers=(("h", bytes(self.header)), ("null", None)) if self.header else (),
            )
            for one in sizes
        ]
        return {HERE: made} if made else {}


async def take(taker: Taker, buffer: Buffer) -> Mapping[TopicPartition, Sequence[Any]]:
    return await taker.fill(buffer, await taker.first(buffer))


async def batches(sizes: Sequence[int], settings: PollSettings, header: int = 0) -> list[list[int]]:
    buffer, taker = Buffer(sizes, header), Taker(settings)
    found = []
    while buffer.left:
        taken = await take(taker, buffer)
        found.append([one.serialized_value_size for one in taken[HERE]])
    return found


async def test_small_records_end_a_batch_by_count() -> None:
    found = await batches([100] * 1200, PollSettings(batch_records=500))
    assert [len(batch) for batch in found] == [500, 500, 200]


async def test_large_records_end_a_batch_by_bytes() -> None:
    settings = PollSettings(batch_bytes=1000 * KIB)
    found = await batches([300 * KIB] * 10, settings)
    assert [len(batch) for batch in found] == [3, 3, 3, 1]


async def test_large_headers_end_a_batch_by_bytes_too() -> None:
    found = await batches([1] * 10, PollSettings(batch_bytes=1000 * KIB), header=300 * KIB)
    assert [len(batch) for batch in found] == [3, 3, 3, 1]


async def test_a_record_larger_than_a_batch_is_a_batch_of_its_own() -> None:
    settings = PollSettings(batch_bytes=100 * KIB)
    found = await batches([200 * KIB, 200 * KIB, 1], settings)
    assert found == [[200 * KIB], [200 * KIB], [1]]


async def test_records_that_grow_cost_one_step_more_at_most() -> None:
    settings = PollSettings(batch_records=500, batch_bytes=1000 * KIB)
    sizes = [100] * 100 + [500 * KIB] * 200
    found = await batches(sizes, settings)
    step = 64 * 500 * KIB
    assert max(sum(batch) for batch in found) <= 1000 * KIB + step
    assert sum(len(batch) for batch in found) == 300
    # Once they are known to be large, no batch is larger than it may be.
    assert all(sum(batch) <= 1000 * KIB for batch in found[2:])


async def test_only_the_first_record_is_waited_for() -> None:
    buffer = Buffer([100] * 10)
    await take(Taker(PollSettings(poll_seconds=0.5)), buffer)
    assert buffer.waited[0] == 500
    assert set(buffer.waited[1:]) == {0}


@pytest.mark.parametrize(
    ("partitions", "expected"), [(0, 32 * KIB), (2, 16 * KIB), (1000, 16 * KIB), (1, 32 * KIB)]
)
def test_partitions_share_the_buffer(partitions: int, expected: int) -> None:
    assert share_of_partition(PollSettings(buffer_bytes=32 * KIB), partitions) == expected
