"""What a consumer remembers of records that failed."""

from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from lethe_outbox.consumer.quarantine import Quarantine

ANYTHING: Any = None


def record(offset: int, partition: int = 0) -> Any:
    return SimpleNamespace(topic="t", partition=partition, offset=offset)


def test_records_that_others_dealt_with_are_not_remembered() -> None:
    """Tried alone, then handled with its batch, a record is never told to be settled."""
    quarantine = Quarantine("tested", ANYTHING, ANYTHING)
    for offset in range(100):
        quarantine.tries(record(offset)).count += 1
        quarantine.tries(record(offset, partition=1)).count += 1
    assert len(quarantine._tries) == 2


def test_a_record_that_is_tried_again_has_its_tries() -> None:
    quarantine = Quarantine("tested", ANYTHING, ANYTHING)
    first = quarantine.tries(record(7))
    first.count += 1
    quarantine.tries(record(8, partition=1))
    assert quarantine.tries(record(7)) is first
    quarantine.settled(record(7))
    assert quarantine.tries(record(7)).count == 0


def test_the_tries_of_a_record_are_not_those_of_the_next_one() -> None:
    """It would be set aside the first time it failed."""
    quarantine = Quarantine("tested", ANYTHING, ANYTHING)
    first = quarantine.tries(record(7))
    first.count += 1
    following = quarantine.tries(record(8))
    assert (following.offset, following.count) == (8, 0)
    # It was rewound: nothing is known of it any more.
    assert quarantine.tries(record(7)).count == 0


def test_nothing_is_known_of_partitions_that_were_given_away() -> None:
    """Whoever has them moves on, and a record that comes back here is tried as a new one."""
    quarantine = Quarantine("tested", ANYTHING, ANYTHING, blocked={TopicPartition("t", 0)})
    quarantine.tries(record(7)).count += 1
    quarantine.revoked()
    assert quarantine.blocked == set()
    assert quarantine.tries(record(7)).count == 0
