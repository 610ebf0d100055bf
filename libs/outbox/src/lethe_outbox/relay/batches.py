"""From rows to Kafka batches, built ahead of being handed over."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.partitioner import murmur2

from lethe_outbox.message import BUCKETS
from lethe_outbox.relay.lane import Fetched
from lethe_outbox.relay.producer import Producer, RefusedError

_MOST_NAMES: Final = 4096
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
    parts = packed.split(b"\0")
    names = _names
    try:
        return [(names[name], value) for name, value in zip(parts[::2], parts[1::2], strict=True)]
    except KeyError:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [(_name(name), value) for name, value in pairs]


def _name(raw: bytes) -> str:
    name = raw.decode()
    if len(_names) < _MOST_NAMES:
        _names[raw] = name
    return name


def by_topic(rows: Sequence[Fetched]) -> dict[str, list[Fetched]]:
    """Group rows by topic, keeping their order."""
    found: dict[str, list[Fetched]] = {}
    for topic, group in itertools.groupby(rows, _topic):
        found.setdefault(topic.decode(), []).extend(group)
    return found


def by_partition(rows: Sequence[Fetched], partitions: int) -> dict[int, list[Fetched]]:
    """Group rows of one topic by what Kafka's default partitioner says of their keys."""
    found: dict[int, list[Fetched]] = {}
    divides = BUCKETS % partitions == 0
    for row in rows:
        number = row[1] if divides else int(murmur2(row[4])) & 0x7FFFFFFF
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
        refused_size = RefusedError("too_large", "MessageSizeTooLargeError")
    return Batch(topic, partition, rows[start:end], kafka, refused_size), end


def _topic(row: Fetched) -> bytes:
    return row[3]
