"""Committing at a steady rate, as writers of latency cases do."""

import time
from collections.abc import Callable

from benchmarks.harness.told import hear_now, say

_WARM_UP_RATE = 20
_QUIET_SECONDS = 1
"""Between the warm-up and what is measured, so that nothing of the one waits in the other."""


def write(commit: Callable[[int], None], rate: float, count: int, warm_up: int) -> None:
    """Say ready, wait for the word, commit `warm_up` and then `count` numbers, and tell when.

    A moment is the monotonic clock's, which all processes of a machine share, taken when the commit
    returned.
    """
    committed: list[float] = []

    def at_rate(numbers: range, per_second: float) -> None:
        started = time.monotonic()
        for place, number in enumerate(numbers):
            # The rate is what is asked for: late ones follow at once, early ones wait.
            time.sleep(max(0.0, started + place / per_second - time.monotonic()))
            commit(number)
            committed.append(time.monotonic())

    say(ready=True)
    hear_now()
    at_rate(range(warm_up), max(rate, _WARM_UP_RATE))
    time.sleep(_QUIET_SECONDS)
    at_rate(range(warm_up, warm_up + count), rate)
    say(at=committed[warm_up:])
    hear_now()
