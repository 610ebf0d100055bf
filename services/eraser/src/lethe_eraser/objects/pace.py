"""How many keys a second a prefix is asked to delete: as many as S3 bears (AIMD).

S3 scales by prefix and says `SlowDown` when one is asked for too much. Its rate is then halved;
every page that goes through adds a little, up to the budget. What was under way when the rate was
halved says nothing of the new rate: each page carries the number of halvings it was sent under.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final

THROTTLING: Final = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "503",
        "429",
    }
)
"""Codes by which S3 asks for fewer requests."""

KEYS_PER_SECOND: Final = 10_000
"""The default budget of a prefix; above S3's own first figure (3,500), which grows with use."""

_SLOWEST: Final = 1 / 100
_STEP: Final = 1 / 50
_REMEMBERED: Final = 4096
_IDLE_SECONDS: Final = 600.0
"""What S3 said of a prefix says nothing any more once nobody asked for it so long."""

OnThrottled = Callable[[str, Callable[[], int]], None]

Prefix = tuple[str, str]
"""A bucket, and the first folder of a key; it may name a person and is never told to anybody."""


@dataclass(slots=True)
class _Lane:
    rate: float
    free_at: float = 0.0
    halvings: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A page that was let through: its prefixes, and under how many halvings of each."""

    lanes: dict[Prefix, int]


class Pace:
    """Budgets of prefixes; for threads.

    Args:
        keys_per_second: the budget of every prefix.
        on_throttled: told a bucket, and what counts its prefixes that are below their budget, at
            any time and from any thread.
        clock: seconds that only grow.
        sleep: waits.
    """

    def __init__(
        self,
        keys_per_second: float = KEYS_PER_SECOND,
        *,
        on_throttled: OnThrottled = lambda _bucket, _count: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._budget = keys_per_second
        self._on_throttled = on_throttled
        self._clock = clock
        self._sleep = sleep
        self._lanes: dict[Prefix, _Lane] = {}
        self._guard = Lock()

    def take(self, bucket: str, keys: Iterable[str]) -> Ticket:
        """Wait until a page of these keys may be sent."""
        wanted: dict[Prefix, int] = {}
        for key in keys:
            prefix = prefix_of(bucket, key)
            wanted[prefix] = wanted.get(prefix, 0) + 1
        with self._guard:
            now = self._clock()
            self._forget(now)
            at = now
            for prefix, count in wanted.items():
                lane = self._lanes.setdefault(prefix, _Lane(self._budget))
                if not self._is_slow(lane, now):
                    lane.rate = self._budget
                starts = max(now, lane.free_at)
                lane.free_at = starts + count / lane.rate
                at = max(at, starts)
            ticket = Ticket({prefix: self._lanes[prefix].halvings for prefix in wanted})
        if at > now:
            self._sleep(at - now)
        return ticket

    def answered(self, ticket: Ticket, slow_down: Collection[Prefix]) -> None:
        """Learn from a page: `slow_down` are the prefixes S3 complained of, the rest went well."""
        with self._guard:
            for prefix, halvings in ticket.lanes.items():
                lane = self._lanes.get(prefix)
                if lane is None or lane.halvings != halvings:
                    continue
                if prefix in slow_down:
                    lane.rate = max(lane.rate / 2, self._budget * _SLOWEST)
                    lane.halvings += 1
                else:
                    lane.rate = min(lane.rate + self._budget * _STEP, self._budget)
        for bucket in {bucket for bucket, _ in ticket.lanes}:
            self._on_throttled(bucket, partial(self.throttled, bucket))

    def rate(self, bucket: str, key: str) -> float:
        """Give the keys a second that the prefix of `key` may be asked for now."""
        lane = self._lanes.get(prefix_of(bucket, key))
        return lane.rate if lane and self._is_slow(lane, self._clock()) else self._budget

    def throttled(self, bucket: str) -> int:
        """Count the prefixes of `bucket` that are below their budget."""
        with self._guard:
            now = self._clock()
            lanes = [lane for (named, _), lane in self._lanes.items() if named == bucket]
            return sum(self._is_slow(lane, now) for lane in lanes)

    def _is_slow(self, lane: _Lane, now: float) -> bool:
        return lane.rate < self._budget and now < lane.free_at + _IDLE_SECONDS

    def _forget(self, now: float) -> None:
        """Drop idle prefixes at full rate once there are many: a first folder may be a person."""
        if len(self._lanes) <= _REMEMBERED:
            return
        self._lanes = {
            prefix: lane
            for prefix, lane in self._lanes.items()
            if self._is_slow(lane, now) or lane.free_at > now
        }


def prefix_of(bucket: str, key: str) -> Prefix:
    """Give the prefix a key is counted under."""
    return bucket, key.partition("/")[0] if "/" in key else ""
