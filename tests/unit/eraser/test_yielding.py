"""The eraser rests after a mask that took twice as long as usual, as long as it took."""

import pytest

from lethe_eraser.execute.yielding import FEWEST, LONGEST_REST, REMEMBERED, Yielding


def after_usual(seconds: float, *, masks: int = REMEMBERED) -> Yielding:
    yielding = Yielding()
    for _ in range(masks):
        assert yielding.after(seconds) == 0
    return yielding


@pytest.mark.parametrize(("took", "rests"), [(0.5, 0.0), (0.99, 0.0), (1.0, 1.0), (3.0, 3.0)])
def test_twice_the_median_is_followed_by_a_rest_as_long(took: float, rests: float) -> None:
    assert after_usual(0.5).after(took) == rests


def test_before_anything_is_usual_nobody_rests() -> None:
    assert after_usual(0.1, masks=FEWEST - 1).after(60) == 0
    assert after_usual(0.1, masks=FEWEST).after(0.3) == 0.3


def test_one_slow_mask_does_not_change_what_is_usual() -> None:
    yielding = after_usual(0.1)
    assert yielding.after(2) == 2
    assert yielding.after(0.2) == 0.2


def test_what_stays_slow_becomes_usual() -> None:
    yielding = after_usual(0.1)
    rests = [yielding.after(0.4) for _ in range(REMEMBERED)]
    assert rests[0] == 0.4
    assert rests[-1] == 0


def test_no_rest_is_longer_than_the_longest() -> None:
    assert after_usual(1).after(60) == LONGEST_REST
