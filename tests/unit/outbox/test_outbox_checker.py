"""The checker itself: it must see what it is there for."""

from uuid import UUID

from lethe_outbox.schema import Status
from tests.support.outbox_checker import Published, Stored, judge, repetitions


def stored(number: int, key: str = "k", status: Status = Status.SENT) -> Stored:
    return Stored(number, UUID(int=number), "t", key, status)


def record(number: int, offset: int, key: str = "k", topic: str = "t", part: int = 0) -> Published:
    return Published(topic, part, offset, key, UUID(int=number))


def test_a_clean_run_has_no_problems() -> None:
    assert judge([stored(1), stored(2)], [record(1, 0), record(2, 1)]) == []


def test_a_repetition_after_the_first_appearance_is_allowed() -> None:
    records = [record(1, 0), record(2, 1), record(1, 2), record(2, 3)]
    assert judge([stored(1), stored(2)], records) == []
    assert repetitions(records) == 2


def test_a_lost_row_is_seen() -> None:
    assert "lost" in judge([stored(1), stored(2)], [record(2, 0)])[0]


def test_an_inversion_is_seen() -> None:
    assert "out of order" in judge([stored(1), stored(2)], [record(2, 0), record(1, 1)])[0]


def test_other_keys_may_overtake() -> None:
    rows = [stored(1, "a"), stored(2, "b")]
    assert judge(rows, [record(2, 0, "b"), record(1, 1, "a")]) == []


def test_a_pending_row_is_a_problem_only_at_the_end() -> None:
    rows = [stored(1, status=Status.PENDING)]
    assert "pending" in judge(rows, [])[0]
    assert judge(rows, [], finished=False) == []


def test_a_dead_letter_must_be_in_its_topic_and_not_in_the_origin() -> None:
    rows = [stored(1, status=Status.DEAD_LETTERED)]
    assert judge(rows, [record(1, 0, topic="t.DLT")]) == []
    assert "not in the dead-letter topic" in judge(rows, [])[0]
    both = [record(1, 0, topic="t.DLT"), record(1, 0)]
    assert "refused but published" in judge(rows, both)[0]


def test_a_key_in_two_partitions_a_stranger_and_a_double_effect_are_seen() -> None:
    rows = [stored(1), stored(2)]
    assert "several partitions" in judge(rows, [record(1, 0), record(2, 0, part=1)])[0]
    assert "of no row" in judge(rows[:1], [record(1, 0), record(9, 1, "z")])[0]
    effects = {UUID(int=1): 2}
    problems = judge(rows, [record(1, 0), record(2, 1)], effects)
    assert len(problems) == 2
