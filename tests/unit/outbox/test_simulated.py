"""What relays promise, in virtual time under faults; and that breaking a rule of theirs is seen."""

from collections.abc import Callable
from typing import Any

import pytest

from lethe_outbox.relay.horizon import Horizon, Look
from lethe_outbox.relay.lane import Fetched, Lane
from lethe_outbox.relay.publish import LanePublisher
from tests.support.simulation.run import Simulation, Verdict

SEEDS = range(4)
SECONDS = 12.0


def simulated(seed: int, seconds: float = SECONDS) -> Verdict:
    return Simulation(seed).run(seconds)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_and_no_key_is_inverted_whatever_happens(seed: int) -> None:
    verdict = simulated(seed)

    assert verdict.problems == []
    assert verdict.rows > 1000
    assert verdict.faults


def never_goes_back(lane: Lane, look: Look) -> None:
    del look
    lane.forget_acknowledged()


def watches_nobody(lane: Lane, look: Look) -> set[str]:
    del lane, look
    return set()


def forgets_open_writers(lane: Lane) -> None:
    for bucket in lane.buckets.values():
        bucket.low_water = max(bucket.low_water, bucket.cursor)


def takes_new_writers_floor_too_high(
    horizon: Horizon, last_id: int, writers: Any, _real: Any = Horizon.observe
) -> Look:
    before = horizon.last
    floors = {writer: before.floors.get(writer, last_id) for writer in writers}
    horizon._last = Look(max(last_id, before.last_id), floors)
    return horizon._last


async def hands_over_before_the_one_before_landed(publisher: LanePublisher) -> None:
    while len(publisher._flying) > 3:
        await LAND(publisher)


LAND = LanePublisher._land


def passes_what_was_not_looked_at(
    lane: Lane, rows: Any, limits: Any, ends: Any, look: Look
) -> list[Fetched]:
    return ACCEPT(lane, rows, limits, dict.fromkeys(ends, look.last_id), look)


ACCEPT = Lane.accept


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (Lane, "begin_fetch", never_goes_back),
        (Lane, "watched", watches_nobody),
        (Lane, "raise_low_waters", forgets_open_writers),
        (Lane, "accept", passes_what_was_not_looked_at),
        (Horizon, "observe", takes_new_writers_floor_too_high),
        (LanePublisher, "_land", hands_over_before_the_one_before_landed),
    ],
)
def test_a_relay_that_breaks_a_rule_is_found_out(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(owner, name, broken)

    assert any(simulated(seed).problems for seed in SEEDS)
