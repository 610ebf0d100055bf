"""When the brokers count as well again, though nothing was there for them to take."""

from collections.abc import Iterator

import pytest

from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.settings import RelaySettings
from tests.support.simulation.world import World

SETTINGS = RelaySettings()
ATTEMPT = SETTINGS.pause_max_seconds + 5 * SETTINGS.publish_seconds


@pytest.fixture
def world() -> Iterator[World]:
    world = World(0)
    yield world
    world.close()


def test_a_silence_is_as_long_as_an_attempt_from_the_last_failure_on(world: World) -> None:
    told: list[tuple[str, str]] = []
    reach = Reach(SETTINGS, lambda *state: told.append(state))
    for error_class in ("first", "second"):
        world.outside.tell(reach.away, error_class)
        world.run(0.9 * ATTEMPT)
    assert told == [("away", "first"), ("away", "second")]
    world.run(0.2 * ATTEMPT)
    assert told[2:] == [("ok", "")]
    world.run(2 * ATTEMPT)
    assert len(told) == 3


def test_who_is_through_is_told_nothing_by_a_silence(world: World) -> None:
    told: list[tuple[str, str]] = []
    reach = Reach(SETTINGS, lambda *state: told.append(state))
    world.outside.tell(reach.away, "last")
    world.outside.tell(reach.close)
    world.run(2 * ATTEMPT)
    assert told == [("away", "last")]
