"""When the open work will be done: the arithmetic alone."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from lethe_contracts.events import TypeTotals
from lethe_eraser.domain import TURN_BATCHES, Forecast, Work, done_rows, forecast
from lethe_eraser.domain.forecast import MOST_WINDOWS
from lethe_eraser.window import Window
from tests.unit.eraser.test_fairness import TONIGHT, Person, finished_after

ALWAYS = Window.parse("always", "UTC")
NIGHT = Window.parse("01:00-05:00", "UTC")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ONE_AM = datetime(2026, 11, 21, 1, tzinfo=UTC)
HOUR = 3600


def work(rows: int, *, hours: float = 1000, first_turn: int = 10**9) -> Work:
    return Work(deadline=NOON + timedelta(hours=hours), rows=rows, first_turn=first_turn)


def known(
    jobs: Sequence[Work],
    rate: float | None = 1.0,
    *,
    workers: int = 1,
    window: Window = NIGHT,
    now: datetime = NOON,
) -> Forecast:
    found = forecast(jobs, rate, workers=workers, hours=window, now=now)
    assert found is not None
    return found


def test_without_work_no_window_is_needed_and_no_rate() -> None:
    assert known([], None) == Forecast(finishes=(), windows=0, slack_seconds=inf)


def test_without_a_rate_nobody_knows() -> None:
    assert forecast([work(0), work(1)], None, workers=1, hours=NIGHT, now=NOON) is None


def test_what_has_nothing_left_is_done_when_the_window_opens_rate_or_not() -> None:
    assert known([work(0, hours=14)], None) == Forecast((ONE_AM,), 1, HOUR)


def test_work_goes_on_where_the_window_closed() -> None:
    found = known([work(5 * HOUR, hours=40)])
    assert found.finishes == (ONE_AM + timedelta(days=1, hours=1),)
    assert found.windows == 2
    assert found.slack_seconds == 2 * HOUR


def test_work_that_fills_the_window_to_the_second_needs_no_other() -> None:
    assert known([work(4 * HOUR)]).windows == 1
    assert known([work(4 * HOUR + 1)]).windows == 2


def test_in_an_open_window_only_what_is_left_of_it_counts() -> None:
    at_three = ONE_AM + timedelta(hours=2)
    assert known([work(3 * HOUR)], now=at_three).windows == 2
    assert known([work(2 * HOUR)], now=at_three).finishes == (ONE_AM + timedelta(hours=4),)


def test_the_tightest_is_not_the_one_that_is_done_last() -> None:
    found = known([work(HOUR, hours=13.5), work(2 * HOUR, hours=100)])
    assert found.slack_seconds == -HOUR / 2, "it is done at two and was due half an hour before"


def test_two_workers_do_two_people_at_once_and_one_person_one_after_the_other() -> None:
    assert known([work(HOUR), work(HOUR)], workers=2).finishes == (ONE_AM + timedelta(hours=1),) * 2
    assert known([work(HOUR, first_turn=60)], workers=2).finishes == (ONE_AM + timedelta(hours=1),)


def test_what_never_ends_is_past_every_deadline_and_ends_the_search() -> None:
    found = known([work(10**15, hours=24 * 365)])
    assert found.windows == MOST_WINDOWS
    assert found.slack_seconds < 0


def test_done_is_what_was_masked_and_what_was_left_on_purpose() -> None:
    totals = {
        "upscale": TypeTotals(feature_rows=3, task_rows=9, objects_gone=7),
        "pdf": TypeTotals(feature_rows=1, rows_blocked=2),
    }
    assert done_rows(totals) == 6


jobs = st.lists(
    st.builds(
        work,
        st.integers(0, 50_000),
        hours=st.integers(-5, 200),
        first_turn=st.integers(0, 20_000),
    ),
    max_size=8,
)
rates = st.floats(0.01, 1000)
some_workers = st.integers(1, 4)


@given(
    st.lists(
        st.builds(
            Person,
            st.integers(1, 200),
            st.integers(0, 100).map(lambda hours: TONIGHT + timedelta(hours=hours)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_it_finishes_people_when_the_simulated_executor_does(crowd: list[Person]) -> None:
    found = known(
        [Work(deadline=one.deadline, rows=one.batches, first_turn=TURN_BATCHES) for one in crowd],
        window=ALWAYS,
    )
    ran = [(at - NOON).total_seconds() for at in found.finishes]
    assert ran == finished_after(crowd)


@given(jobs, rates, some_workers, st.sampled_from([ALWAYS, NIGHT]))
def test_it_holds_together(some: list[Work], rate: float, workers: int, window: Window) -> None:
    found = known(some, rate, workers=workers, window=window)
    assert len(found.finishes) == len(some)
    assert (found.windows == 0) is (not some)
    for one, at in zip(some, found.finishes, strict=True):
        assert (one.deadline - at).total_seconds() >= found.slack_seconds
        least = timedelta(seconds=one.rows / rate - 1e-3)
        assert at >= min(NOON + least, NOON + timedelta(days=MOST_WINDOWS - 1))


@settings(max_examples=30)
@given(jobs, rates, some_workers)
def test_more_work_is_never_done_earlier(some: list[Work], rate: float, workers: int) -> None:
    whole = known(some, rate, workers=workers)
    for left_out in range(len(some)):
        without = known(some[:left_out] + some[left_out + 1 :], rate, workers=workers)
        others = [*whole.finishes[:left_out], *whole.finishes[left_out + 1 :]]
        allowed = timedelta(milliseconds=1)
        assert all(a <= b + allowed for a, b in zip(without.finishes, others, strict=True))
        assert without.windows <= whole.windows


@settings(max_examples=50)
@given(jobs, rates, some_workers, st.floats(1, 10))
def test_a_faster_rate_needs_no_more_windows(
    some: list[Work], rate: float, workers: int, faster: float
) -> None:
    slow, fast = known(some, rate, workers=workers), known(some, rate * faster, workers=workers)
    assert fast.windows <= slow.windows
    assert fast.slack_seconds >= slow.slack_seconds - 1e-3


@given(st.integers(0, 20 * 60), st.integers(0, 24 * 60 - 1))
def test_the_calendar_is_that_of_a_clock_that_ticks_every_minute(minutes: int, later: int) -> None:
    now = NOON + timedelta(minutes=later)
    found = known([work(minutes * 60)], now=now)
    at, worked, windows, was_open = now, 0, 0, False
    while True:
        is_open = NIGHT.is_open(at)
        if is_open and not was_open and (worked < minutes or not windows):
            windows += 1
        was_open = is_open
        if worked == minutes and windows:
            break
        if is_open:
            worked += 1
        at += timedelta(minutes=1)
    assert found.windows == windows
    assert found.finishes[0] == at
