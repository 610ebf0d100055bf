"""The checker itself: it must see what it is there for, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from lethe_outbox.schema import Status
from tests.support.outbox_checker import (
    Buried,
    Effect,
    Published,
    Stored,
    StreamedOrder,
    judge,
    repetitions,
)


def stored(number: int, key: str = "k", status: Status = Status.SENT) -> Stored:
    dead = status in (Status.DEAD_LETTERED, Status.DLT_FAILED)
    return Stored(
        number,
        UUID(int=number),
        "t",
        key,
        status,
        has_sent_at=status is Status.SENT,
        attempts=int(dead),
        dlt_attempts=int(status is Status.DLT_FAILED),
        last_error="too_large" if dead else None,
    )


def record(number: int, offset: int, key: str = "k", topic: str = "t", part: int = 0) -> Published:
    return Published(topic, part, offset, key, UUID(int=number))


def grave(row: Stored, *, held: bool = False) -> Buried:
    return Buried(row.id, row.event_id, row.topic, row.key, row.status, held)


def effects(*numbers: int, consumer: str = "c") -> list[Effect]:
    return [Effect(consumer, UUID(int=number)) for number in numbers]


TWO = (stored(1), stored(2))
BOTH = (record(1, 0), record(2, 1))


def test_a_clean_run_has_no_problems() -> None:
    assert judge(TWO, BOTH, effects(1, 2), buried=[]) == []


def test_a_repetition_after_the_first_appearance_is_allowed() -> None:
    records = [record(1, 0), record(2, 1), record(1, 2), record(2, 3)]
    assert judge(TWO, records) == []
    assert repetitions(records) == 2


def test_a_lost_row_is_seen() -> None:
    assert "lost" in judge(TWO, [record(2, 0)])[0]


def test_an_inversion_is_seen_unless_somebody_asked_for_it() -> None:
    records = [record(2, 0), record(1, 1)]
    assert "out of order" in judge(TWO, records)[0]
    assert judge(TWO, records, reordered=[1]) == []


def test_other_keys_may_overtake() -> None:
    rows = [stored(1, "a"), stored(2, "b")]
    assert judge(rows, [record(2, 0, "b"), record(1, 1, "a")]) == []


def test_a_pending_row_is_a_problem_only_at_the_end() -> None:
    rows = [stored(1, status=Status.PENDING)]
    assert "pending" in judge(rows, [])[0]
    assert judge(rows, [], finished=False) == []


def test_a_published_row_must_be_marked_at_the_end() -> None:
    rows = [stored(1, status=Status.PENDING)]
    assert any("not marked" in problem for problem in judge(rows, [record(1, 0)]))
    assert judge(rows, [record(1, 0)], finished=False) == []


def test_a_dead_letter_must_be_in_its_topic_and_not_in_the_origin() -> None:
    rows = [stored(1, status=Status.DEAD_LETTERED)]
    assert judge(rows, [record(1, 0, topic="t.DLT")]) == []
    assert "not in the dead-letter topic" in judge(rows, [])[0]
    both = [record(1, 0, topic="t.DLT"), record(1, 0)]
    assert "refused but published" in judge(rows, both)[0]


def test_a_row_that_its_dead_letter_topic_refused_is_nowhere() -> None:
    rows = [stored(1, status=Status.DLT_FAILED)]
    assert judge(rows, []) == []
    assert "refused but published" in judge(rows, [record(1, 0)])[0]


def test_a_key_in_two_partitions_and_a_record_of_no_row_are_seen() -> None:
    assert "several partitions" in judge(TWO, [record(1, 0), record(2, 0, part=1)])[0]
    assert "of no row" in judge(TWO[:1], [record(1, 0), record(9, 1, "z")])[0]
    assert "of no row" in judge(TWO[:1], [record(1, 0), record(1, 1, "another key")])[0]


DEAD = stored(1, status=Status.DEAD_LETTERED)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (replace(stored(1), has_sent_at=False), "sent_at"),
        (replace(DEAD, has_sent_at=True), "sent_at"),
        (replace(DEAD, attempts=0), "without attempt"),
        (replace(DEAD, last_error=None), "without attempt"),
        (replace(stored(1, status=Status.DLT_FAILED), dlt_attempts=0), "without a counted attempt"),
        (replace(stored(1), last_error="odd"), "never refused"),
        (replace(stored(1), dlt_attempts=1), "never refused"),
    ],
)
def test_what_stands_beside_a_status_must_fit(row: Stored, problem: str) -> None:
    topic = "t" if row.status is Status.SENT else "t.DLT"
    assert any(problem in found for found in judge([row], [record(1, 0, topic=topic)]))


def test_the_list_of_the_dead_is_complete_and_true() -> None:
    records = [record(1, 0, topic="t.DLT")]
    assert judge([DEAD], records, buried=[grave(DEAD)]) == []
    assert "not in outbox_dead" in judge([DEAD], records, buried=[])[0]
    assert "no such dead row" in judge(TWO, BOTH, buried=[grave(TWO[0])])[0]
    other = replace(grave(DEAD), status=Status.DLT_FAILED)
    assert len(judge([DEAD], records, buried=[other])) == 2


def test_a_key_that_is_held_back_waits_and_nothing_of_it_is_published() -> None:
    waiting = [DEAD, stored(2, status=Status.PENDING)]
    letter = record(1, 0, topic="t.DLT")
    assert judge(waiting, [letter], buried=[grave(DEAD, held=True)]) == []
    assert "still pending" in judge(waiting, [letter], buried=[grave(DEAD)])[0]
    past = [DEAD, stored(2)]
    problems = judge(past, [letter, record(2, 0)], buried=[grave(DEAD, held=True)])
    assert problems == ["1 records of keys that are held back"]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (effects(1, 2, 2), "more than once"),
        (effects(1), "without effect"),
        (effects(2, 1), "effects out of order"),
        (effects(1, 2, 9), "effects of no row"),
        ([*effects(1, 2), *effects(1, consumer="other")], "without effect in other"),
        ([], "nothing that was sent took effect"),
    ],
)
def test_effects_are_each_event_s_once_and_in_order(found: Sequence[Effect], problem: str) -> None:
    assert any(problem in one for one in judge(TWO, BOTH, found))


def test_effects_may_be_missing_while_consumers_still_work() -> None:
    assert judge(TWO, BOTH, effects(1), finished=False) == []


def streamed(*records: tuple[str, int], refused: dict[str, set[int]] | None = None) -> list[str]:
    order = StreamedOrder(refused or {})
    for key, number in records:
        order.see(key, number)
    return order.judge({"a": 3, "b": 1})


CLEAN = (("a", 1), ("b", 1), ("a", 2), ("a", 3))


def test_a_stream_may_repeat_but_must_be_complete_and_in_order() -> None:
    assert streamed(*CLEAN) == []
    assert streamed(*CLEAN, ("a", 1), ("a", 2)) == []
    assert "lost or out of order" in streamed(("a", 2), ("a", 1), ("a", 3), ("b", 1))[0]
    assert "lost or out of order" in streamed(("a", 1), ("a", 3), ("b", 1))[0]
    assert "do not end with their last" in streamed(("a", 1), ("a", 2), ("b", 1))[0]
    assert "nobody wrote" in streamed(*CLEAN, ("z", 1))[0]


def test_what_was_refused_is_missing_in_a_stream_and_nothing_else() -> None:
    assert streamed(("a", 1), ("a", 3), ("b", 1), refused={"a": {2}}) == []
    assert streamed(("a", 1), ("a", 2), ("b", 1), refused={"a": {3}}) == []
    assert "refused but published" in streamed(*CLEAN, refused={"a": {2}})[0]


def test_a_stream_with_a_key_in_two_partitions_is_seen() -> None:
    order = StreamedOrder()
    order.see("a", 1, 0)
    order.see("a", 2, 1)
    assert order.judge({"a": 2}) == ["1 records of keys in several partitions"]
