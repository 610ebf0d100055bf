"""The rate of a prefix: halved when S3 asks, grown again page by page; on a clock of the test's."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lethe_eraser.objects.pace import Pace, prefix_of


@dataclass
class Time:
    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def pace_of(time: Time, rate: float = 1000, told: list[tuple[str, int]] | None = None) -> Pace:
    said = [] if told is None else told
    return Pace(
        rate,
        on_throttled=lambda bucket, count: said.append((bucket, count())),
        clock=lambda: time.now,
        sleep=time.sleep,
    )


def page(prefix: str, count: int = 100) -> list[str]:
    return [f"{prefix}/{number}" for number in range(count)]


def test_pages_of_one_prefix_wait_for_each_other_and_of_another_do_not() -> None:
    time = Time()
    pace = pace_of(time)
    pace.take("b", page("mine", 500))
    assert time.slept == []
    pace.take("b", page("theirs", 500))
    pace.take("other", page("mine", 500))
    assert time.slept == []
    pace.take("b", page("mine", 1))
    assert time.slept == [0.5]


def test_slow_down_halves_that_prefix_alone_and_pages_that_go_well_bring_it_back() -> None:
    told: list[tuple[str, int]] = []
    pace = pace_of(Time(), told=told)
    pace.answered(pace.take("b", [*page("mine"), *page("theirs")]), {prefix_of("b", "mine/1")})
    assert (pace.rate("b", "mine/x"), pace.rate("b", "theirs/x")) == (500, 1000)
    assert told == [("b", 1)]
    for _ in range(24):
        pace.answered(pace.take("b", page("mine")), ())
    assert pace.rate("b", "mine/x") == 980
    assert told[-1] == ("b", 1)
    pace.answered(pace.take("b", page("mine")), ())
    assert pace.rate("b", "mine/x") == 1000
    assert told[-1] == ("b", 0)


def test_pages_that_were_under_way_together_halve_the_rate_once() -> None:
    pace = pace_of(Time())
    slow = {prefix_of("b", "mine/1")}
    tickets = [pace.take("b", page("mine")) for _ in range(4)]
    for ticket in tickets:
        pace.answered(ticket, slow)
    assert pace.rate("b", "mine/x") == 500
    pace.answered(tickets[0], ())
    assert pace.rate("b", "mine/x") == 500
    pace.answered(pace.take("b", page("mine")), slow)
    assert pace.rate("b", "mine/x") == 250


@given(st.lists(st.booleans(), max_size=200))
def test_the_rate_stays_between_a_hundredth_and_the_budget(answers: list[bool]) -> None:
    pace = pace_of(Time())
    for is_slow in answers:
        pace.answered(
            pace.take("b", page("mine", 1)), {prefix_of("b", "mine/0")} if is_slow else ()
        )
        assert 10 <= pace.rate("b", "mine/0") <= 1000


def test_idle_prefixes_are_forgotten_and_slow_ones_are_not() -> None:
    time = Time()
    pace = pace_of(time)
    pace.answered(pace.take("b", page("slow", 1)), {prefix_of("b", "slow/0")})
    for number in range(10_000):
        time.now += 0.05
        pace.take("b", [f"{number}/x"])
    assert len(pace._lanes) < 5_000
    assert pace.rate("b", "slow/x") == 500


def test_a_prefix_that_nobody_uses_any_more_is_slow_no_longer() -> None:
    time = Time()
    pace = pace_of(time)
    pace.answered(pace.take("b", page("slow", 1)), {prefix_of("b", "slow/0")})
    time.now += 599
    assert (pace.throttled("b"), pace.rate("b", "slow/x")) == (1, 500)
    time.now += 2
    assert (pace.throttled("b"), pace.rate("b", "slow/x")) == (0, 1000)
    pace.take("b", page("slow", 1000))
    pace.take("b", page("slow", 1))
    assert time.slept == [1.0]
    for number in range(10_000):
        time.now += 1
        pace.answered(pace.take("b", [f"{number}/x"]), {prefix_of("b", f"{number}/x")})
    assert len(pace._lanes) < 5_000
