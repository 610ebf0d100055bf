"""The relay's parts that need no server."""

from collections.abc import Sequence
from typing import Any, Final

import pytest
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from lethe_outbox import Message
from lethe_outbox.errors import RelaySettingsError
from lethe_outbox.message import bucket_of, pack_headers
from lethe_outbox.relay.batches import build, by_partition, by_topic, headers_of
from lethe_outbox.relay.lane import Fetched
from lethe_outbox.relay.producer import BrokenError, RefusedError, judge
from lethe_outbox.relay.settings import RelaySettings

HEADERS: Final[tuple[tuple[bytes, list[tuple[str, bytes]]], ...]] = (
    (b"ce_id\x001", [("ce_id", b"1")]),
    (b"", []),
    (b"a\x00\x00b\x002", [("a", b""), ("b", b"2")]),
)


def row(number: int, key: str, payload: bytes = b"p", headers: bytes = b"") -> Fetched:
    return (number, bucket_of(key), 0, b"topic", key.encode(), payload, headers)


@given(st.text(min_size=1), st.sampled_from([1, 2, 3, 5, 12, 16, 64, 256, 300]))
def test_rows_go_where_kafkas_default_partitioner_sends_them(key: str, partitions: int) -> None:
    numbers = list(range(partitions))
    expected = DefaultPartitioner()(key.encode(), numbers, numbers)
    assert list(by_partition([row(1, key)], partitions)) == [expected]


def test_rows_of_several_topics_keep_their_order_within_each() -> None:
    rows = [(n, 0, 0, topic, b"k", b"", b"") for n, topic in enumerate([b"a", b"b", b"a", b"a"])]
    found = by_topic(rows)
    assert {topic: [r[0] for r in group] for topic, group in found.items()} == {
        "a": [0, 2, 3],
        "b": [1],
    }


@pytest.mark.parametrize(("packed", "expected"), HEADERS)
def test_headers_are_read_as_they_were_written(
    packed: bytes, expected: list[tuple[str, bytes]]
) -> None:
    assert headers_of(packed) == expected


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
            st.binary().filter(lambda value: b"\0" not in value),
        ),
        max_size=5,
    )
)
def test_every_message_s_headers_come_out_as_they_went_in(
    headers: list[tuple[str, bytes]],
) -> None:
    given_headers = tuple(one for one in headers if one[0] != "ce_id")
    message = Message("t", "k", b"", given_headers)
    found = headers_of(pack_headers(message))
    assert sorted(found) == sorted([*given_headers, ("ce_id", str(message.event_id).encode())])


class FakeBatch:
    """Takes records up to a number of bytes, the first one always."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.values: list[bytes] = []
        self.closed = False

    def append(
        self, *, key: bytes, value: bytes, timestamp: None, headers: Sequence[tuple[str, bytes]]
    ) -> object | None:
        del key, timestamp, headers
        if self.values and self.size() + len(value) > self.limit:
            return None
        self.values.append(value)
        return object()

    def close(self) -> None:
        self.closed = True

    def size(self) -> int:
        return sum(map(len, self.values))


class FakeProducer:
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def batch(self) -> FakeBatch:
        return FakeBatch(self.limit)


def built(rows: Sequence[Fetched], limit: int, largest: int = 1000) -> list[list[Any]]:
    producer: Any = FakeProducer(limit)
    return [list(given) for given in build(producer, {("topic", 0): rows}, largest)]


def test_batches_hold_every_row_once_and_in_order() -> None:
    rows = [row(n, "k", b"x" * 40) for n in range(10)]
    batches = [given[0] for given in built(rows, 100)]
    assert [[r[0] for r in batch.rows] for batch in batches] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
        [8, 9],
    ]
    assert all(batch.kafka.closed for batch in batches)


def test_a_row_beyond_what_a_broker_answers_to_is_refused_here() -> None:
    (first,), (second,) = built([row(1, "k", b"x" * 2000), row(2, "k")], 100)
    assert first.refused is not None
    assert first.refused.reason == "too_large"
    assert [r[0] for r in first.rows] == [1]
    assert second.refused is None


def test_a_row_with_unreadable_headers_is_refused_alone() -> None:
    rows = [row(1, "k"), row(2, "k", headers=b"no value"), row(3, "k")]
    batches = [given[0] for given in built(rows, 100)]
    assert [[r[0] for r in batch.rows] for batch in batches] == [[1], [2], [3]]
    assert [batch.refused and batch.refused.reason for batch in batches] == [
        None,
        "malformed_headers",
        None,
    ]


def test_only_answers_about_the_record_are_refusals() -> None:
    too_large = judge(MessageSizeTooLargeError())
    assert isinstance(too_large, RefusedError)
    assert too_large.reason == "too_large"
    forbidden = judge(TopicAuthorizationFailedError())
    assert isinstance(forbidden, RefusedError)
    assert forbidden.reason == "not_authorised"
    for error in (KafkaConnectionError(), NotEnoughReplicasError(), TimeoutError()):
        broken = judge(error)
        assert isinstance(broken, BrokenError)
        assert not broken.answered
    by_the_clock = judge(InvalidTimestampError())
    assert isinstance(by_the_clock, BrokenError)
    assert by_the_clock.late
    assert not by_the_clock.answered
    stuck = judge(OutOfOrderSequenceNumber())
    assert isinstance(stuck, BrokenError)
    assert stuck.answered


@pytest.mark.parametrize(
    "wrong",
    [
        {"lanes": 15},
        {"lanes": 0},
        {"lease_seconds": 5.0},
        {"publish_seconds": 11.0},
        {"rows_per_bucket": 0},
        {"poll_max_seconds": 0.001},
        {"retention_seconds": 0},
        {"janitor_seconds": -1},
        {"janitor_lock_seconds": 0},
        {"janitor_lock_seconds": 1},
        {"months_ahead": 0},
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RelaySettingsError):
        RelaySettings(**wrong)


def test_rows_that_are_too_large_only_together_are_handed_over_in_smaller_batches() -> None:
    rows = [row(n, "k", b"x" * 40) for n in range(7)]
    rows.insert(3, row(9, "k", b"x" * 150))
    batches = [given[0] for given in built(rows, limit=1000, largest=100)]
    assert [[r[0] for r in batch.rows] for batch in batches if batch.refused] == [[9]]
    assert [r[0] for batch in batches for r in batch.rows] == [0, 1, 2, 9, 3, 4, 5, 6]
    assert all(batch.kafka.size() <= 100 for batch in batches if not batch.refused)
