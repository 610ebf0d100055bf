from contextlib import ExitStack

import pytest
from rich.console import Console

from benchmarks.harness import report
from benchmarks.harness.model import (
    Bench,
    Case,
    Figure,
    Goal,
    Kept,
    Options,
    Row,
    Sample,
    Verdict,
    at_least,
    at_most,
)
from benchmarks.harness.run import run
from benchmarks.harness.topics import Tally
from lethe_sandbox.stack import Addresses, PostgresAddress, S3Address


def samples(**values: list[float]) -> dict[str, list[Sample]]:
    return {case: [Sample({"rate": value}) for value in found] for case, found in values.items()}


def line(row: Row, found: dict[str, list[Sample]]) -> report.Line:
    (only,) = report.lines([Figure("one", (), (row,))], found)
    return only


def test_a_value_is_the_median_with_the_smallest_and_the_largest() -> None:
    found = line(Row("work", "ours", "rate", "rows/s"), samples(ours=[30, 10, 20]))
    assert found.value == report.Spread(20, 10, 30)
    assert found.ratio is None
    assert found.reached is None


def test_a_ratio_is_taken_within_each_repetition() -> None:
    # The second repetition ran on a machine at half its speed: nobody is better or worse for it.
    found = line(
        Row("work", "ours", "rate", "rows/s", "bare", goal=at_least(1.8)),
        samples(ours=[200, 100, 190], bare=[100, 50, 100]),
    )
    assert found.ratio == report.Spread(2.0, 1.9, 2.0)
    assert found.reached is True


def test_a_case_repeated_less_often_stands_beside_the_first_repetitions() -> None:
    found = line(
        Row("work", "ours", "rate", "rows/s", "bare"), samples(ours=[4], bare=[2, 400, 400])
    )
    assert found.ratio == report.Spread(2, 2, 2)


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (at_least(1.8), 1.8, True),
        (at_least(1.8), 1.79, False),
        (at_most(150), 150, True),
        (at_most(150), 150.1, False),
    ],
)
def test_a_goal_includes_its_limit(goal: Goal, value: float, reached: bool) -> None:  # noqa: FBT001 - a parameter of the table
    assert goal.reached(value) is reached


def test_a_goal_for_a_ratio_needs_something_to_compare_with() -> None:
    with pytest.raises(ValueError, match="compare"):
        line(Row("work", "ours", "rate", "rows/s", goal=at_least(2)), samples(ours=[1]))


def test_the_topic_is_judged_by_its_numbers() -> None:
    tally = Tally(4)
    for key, number in ((b"a", 0), (b"a", 2), (b"a", 1), (b"b", 0), (b"a", 2)):
        tally.add(key, b"%010dxxx" % number)
    assert tally.verdict() == Verdict(expected=4, found=5, lost=1, duplicates=2, inversions=1)
    assert not tally.verdict().clean


def test_a_repetition_of_what_was_in_order_is_no_inversion() -> None:
    tally = Tally(2)
    for number in (0, 1, 0, 1):
        tally.add(b"a", b"%010d" % number)
    assert tally.verdict() == Verdict(expected=2, found=4, lost=0, duplicates=2, inversions=0)


def test_a_number_nobody_wrote_is_an_error() -> None:
    with pytest.raises(ValueError, match="nobody wrote"):
        Tally(2).add(b"a", b"%010d" % 2)


def test_what_a_topic_lacks_is_named() -> None:
    clean = Sample({}, Verdict(1, 1, 0, 0, 0))
    lossy = Sample({}, Verdict(2, 1, 1, 0, 0))
    assert report.unclean({"a": [clean], "b": [clean, lossy]}) == [
        "b: 1 lost, 0 double, 0 out of order"
    ]


def test_cases_run_in_turn_and_every_other_repetition_backwards(bench: Bench) -> None:
    order: list[str] = []

    def case(name: str, at_most_: int | None = None) -> Case:
        def one(_: Bench) -> Sample:
            order.append(name)
            return Sample({"n": len(order)})

        return Case(name, one, at_most_)

    shared = case("shared")
    first = Figure("first", (shared, case("rare", 1)), ())
    second = Figure("second", (shared, case("last")), ())
    found = run([first, second], bench).samples
    assert order == ["shared", "rare", "last", "last", "shared", "shared", "last"]
    assert {name: len(one) for name, one in found.items()} == {"shared": 3, "rare": 1, "last": 3}


def test_a_case_that_fails_ends_itself_and_no_other(bench: Bench) -> None:
    tries: list[str] = []

    def second_time_broken(_: Bench) -> Sample:
        tries.append("broken")
        if len(tries) > 1:
            raise TimeoutError("never came")
        return Sample({"rate": 1})

    rows = (Row("a", "fine", "rate", "x"), Row("b", "fine", "rate", "x", "broken"))
    cases = (Case("broken", second_time_broken), Case("fine", lambda _: Sample({"rate": 2})))
    figure = Figure("one", cases, rows)
    outcome = run([figure], bench)
    assert outcome.failures == {"broken": "TimeoutError: never came"}
    assert len(tries) == 2
    assert len(outcome.samples["fine"]) == 3
    assert [one.row.work for one in report.lines([figure], outcome.samples)] == ["a"]


def test_the_table_says_what_was_reached_and_missed() -> None:
    made = report.lines(
        [
            Figure(
                "relay",
                (),
                (
                    Row("good", "ours", "rate", "rows/s", "bare", goal=at_least(1.8)),
                    Row("bad", "ours", "rate", "MB", goal=at_most(150)),
                ),
            )
        ],
        samples(ours=[200], bare=[100]),
    )
    console = Console(width=160)
    with console.capture() as captured:
        report.show(console, made)
    good, bad = (row for row in captured.get().splitlines() if "good" in row or "bad" in row)
    assert "at least 1.8 x" in good
    assert "reached" in good
    assert "at most 150 MB" in bad
    assert "missed" in bad


@pytest.fixture
def bench() -> Bench:
    addresses = Addresses(
        PostgresAddress("nowhere", 0, "", ""), "nowhere:0", "", S3Address("", "", "", "")
    )
    return Bench(addresses, Options(repeats=3), lambda _: None, Kept(ExitStack()))
