"""Taking records out of a consumer's buffer, bounded in bytes: the buffer, and each batch.

The buffer holds at most what one fetch of every partition may bring (`buffer_bytes`, as the records
come over the wire), plus one record of each partition that is larger than its share. A batch is
taken in small steps, because compressed records show their size only when they are taken.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from aiokafka import TopicPartition

_STEP: Final = 64
_UNKNOWN_SIZE: Final = 1024 * 1024
_SMALLEST_SHARE: Final = 16 * 1024


class Bounds(Protocol):
    """What bounds it; `polling.PollSettings` is one."""

    @property
    def batch_records(self) -> int:
        """Most records of a batch."""
        ...

    @property
    def batch_bytes(self) -> int:
        """About the most bytes of a batch: at most one step more, and always one record."""
        ...

    @property
    def buffer_bytes(self) -> int:
        """Most bytes fetched ahead, over all partitions."""
        ...

    @property
    def poll_seconds(self) -> float:
        """How long the first record is waited for."""
        ...


def share_of_partition(bounds: Bounds, partitions: int) -> int:
    """Say how many bytes one fetch may bring of one partition, were all of them ours."""
    return max(_SMALLEST_SHARE, bounds.buffer_bytes // max(1, partitions))


class Taker:
    """Takes batches; remembers how large records were lately.

    Args:
        bounds: see `Bounds`.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._largest = _UNKNOWN_SIZE

    async def first(self, consumer: Any) -> Mapping[TopicPartition, Sequence[Any]]:
        """Wait for what a batch begins with; nothing if nothing comes.

        During a rebalance this waits for its end, so nothing that a rebalance waits for may be held
        meanwhile. When it returns, none is under way.
        """
        wait_ms = int(self._bounds.poll_seconds * 1000)
        found: Mapping[TopicPartition, Sequence[Any]] = await consumer.getmany(
            timeout_ms=wait_ms, max_records=self._step(0, 0)
        )
        return found

    async def fill(
        self, consumer: Any, first: Mapping[TopicPartition, Sequence[Any]]
    ) -> Mapping[TopicPartition, Sequence[Any]]:
        """Add to what `first` gave whatever is there already, up to a batch."""
        taken: dict[TopicPartition, list[Any]] = {}
        count, size, largest = 0, 0, 1
        found = first
        while found:
            for partition, records in found.items():
                taken.setdefault(partition, []).extend(records)
                count += len(records)
                sizes = [_size(one) for one in records]
                size += sum(sizes)
                largest = max(largest, *sizes)
            self._largest = largest
            step = self._step(count, size)
            if step <= 0:
                break
            found = await consumer.getmany(timeout_ms=0, max_records=step)
        return taken

    def _step(self, count: int, size: int) -> int:
        room = self._bounds.batch_bytes - size
        left = self._bounds.batch_records - count
        if left <= 0 or (room <= 0 and count > 0):
            return 0
        # Another of the largest may follow and still fit, or the batch ends here.
        fitting = room // self._largest
        return min(_STEP, left, fitting) if count else max(1, min(_STEP, left, fitting))


def _size(consumed: Any) -> int:
    """Give a record's bytes; Kafka says -1 of what is null."""
    size: int = max(0, consumed.serialized_key_size) + max(0, consumed.serialized_value_size)
    for name, value in consumed.headers:
        size += len(name) + len(value or b"")
    return size
