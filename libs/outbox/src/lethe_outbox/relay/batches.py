"""From rows to Kafka batches, built ahead of being handed over."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from aiokafka.partitioner import murmur2

from lethe_outbox.message import BUCKETS
from lethe_outbox.relay.lane import Fetched
from lethe_outbox.relay.producer import Producer, RefusedError

_MOST_NAMES: Final = 4096
_TWO_HEADERS: Final = 4
_topic: Final = itemgetter(3)
_names: dict[bytes, str] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one partition in the order of their ids, and their Kafka batch.

    `refused` says why they cannot even be handed over.
    """

    topic: str
    partition: int
    rows: Sequence[Fetched]
    kafka: Any = None
    refused: RefusedError | None = None


def headers_of(packed: bytes) -> list[tuple[str, bytes]]:
    """Read a row's headers; names are decoded once per process.

    Raises:
        ValueError: they are not in the layout that `append` writes.
    """
    if not packed:
        return []
    known = _names
    parts = packed.split(b"\0")
    try:
        # The event's id and one more are what most rows have; this is done for every row.
        if len(parts) == _TWO_HEADERS:
            return [(known[parts[0]], parts[1]), (known[parts[2]], parts[3])]
        return list(zip(map(known.__getitem__, parts[::2]), parts[1::2], strict=True))
    except KeyError:
        return list(zip(map(_name, parts[::2]), parts[1::2], strict=True))


def _name(raw: bytes) -> str:
    name = raw.decode()
    if len(_names) < _MOST_NAMES:
        _names[raw] = name
    return name


def by_topic(rows: Sequence[Fetched]) -> Mapping[str, Sequence[Fetched]]:
    """Group rows by topic, keeping their order."""
    if len(set(map(_topic, rows))) == 1:
        return {rows[0][3].decode(): rows}
    found: dict[str, list[Fetched]] = {}
    for topic, group in itertools.groupby(rows, _topic):
        found.setdefault(topic.decode(), []).extend(group)
    return found


def by_partition(
    rows: Sequence[Fetched], partitions: int, lanes: int = 1
) -> Mapping[int, Sequence[Fetched]]:
    """Group rows of one topic by what Kafka's default partitioner says of their keys.

    Args:
        rows: of one lane.
        partitions: of the topic.
        lanes: how many there are: `lanes` divides the difference of any two buckets of the rows.
    """
    divides = BUCKETS % partitions == 0
    if divides and lanes % partitions == 0:
        return {rows[0][1] % partitions: rows}
    found: dict[int, list[Fetched]] = {}
    for row in rows:
        number = row[1] if divides else _hash(row[4])
        partition = number % partitions
        known = found.get(partition)
        if known is None:
            found[partition] = [row]
        else:
            known.append(row)
    return found


def build(
    producer: Producer,
    groups: Mapping[tuple[str, int], Sequence[Fetched]],
    largest_record_bytes: int,
) -> Iterator[list[Batch]]:
    """Build batches, at most one per partition at a time.

    What is given next is to be handed over only after all given before were delivered.
    """
    positions = dict.fromkeys(groups, 0)
    while positions:
        given = []
        for place in list(positions):
            rows, start = groups[place], positions[place]
            batch, end = _fill(producer, place, rows, start, largest_record_bytes)
            given.append(batch)
            if end < len(rows):
                positions[place] = end
            else:
                del positions[place]
        yield given


def _fill(
    producer: Producer,
    place: tuple[str, int],
    rows: Sequence[Fetched],
    start: int,
    largest_record_bytes: int,
) -> tuple[Batch, int]:
    topic, partition = place
    kafka = producer.batch()
    append = kafka.append
    end = start
    for at in range(start, len(rows)):
        row = rows[at]
        try:
            headers = headers_of(row[6])
        except ValueError:
            break
        if append(key=row[4], value=row[5], timestamp=None, headers=headers) is None:
            break
        end = at + 1
    if end == start:
        refused = RefusedError("malformed_headers", "ValueError")
        return Batch(topic, partition, rows[start : start + 1], refused=refused), start + 1
    kafka.close()
    refused_size = None
    if kafka.size() > largest_record_bytes:
        if end - start > 1:
            # None of them need be too large alone.
            fewer = rows[: (start + end) // 2]
            return _fill(producer, place, fewer, start, largest_record_bytes)
        refused_size = RefusedError("too_large", "MessageSizeTooLargeError")
    return Batch(topic, partition, rows[start:end], kafka, refused_size), end


@lru_cache(maxsize=16_384)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF
