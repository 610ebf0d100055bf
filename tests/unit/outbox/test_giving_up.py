"""What becomes of the producer of all lanes when one batch did not get through."""

from typing import Any

import pytest

from lethe_outbox.relay.producer import BrokenError
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.settings import RelaySettings
from tests.support.waiting import until

LATE = BrokenError("TimeoutError", late=True)
SPENT = BrokenError("ProducerFenced")


class Ends:
    """A producer that notes how it is ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def stop(self) -> None:
        self.ends.append("finishes what it has")

    async def abort(self) -> None:
        self.ends.append("is cut off")


@pytest.mark.parametrize(
    ("broken", "end", "states"),
    [
        (LATE, "finishes what it has", []),
        (SPENT, "is cut off", [("away", "ProducerFenced")]),
    ],
)
async def test_what_others_have_in_a_producer_goes_on_if_one_batch_was_late(
    broken: BrokenError, end: str, states: list[tuple[str, str]]
) -> None:
    told: list[tuple[str, str]] = []
    settings = RelaySettings()
    reach = Reach(settings, lambda *state: told.append(state))
    producers = Producers("nowhere:1", settings, idempotent=True, reach=reach)
    shared: Any = Ends()
    producers._current = shared
    producers.succeeded()
    told.clear()
    producers.give_up(shared, broken)
    assert producers._current is None
    await producers.close()
    assert (shared.ends, told) == ([end], states)


async def test_it_is_told_once_however_many_lanes_hang_in_a_producer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = RelaySettings()
    reach = Reach(settings, lambda *_: None)
    producers = Producers("nowhere:1", settings, idempotent=True, reach=reach)
    shared: Any = Ends()
    producers._current = shared
    for _ in range(settings.lanes):
        producers.give_up(shared, LATE)
    await producers.close()
    assert shared.ends == ["finishes what it has"]
    [_] = [line for line in caplog.messages if line.startswith("not taken in its time")]


async def test_a_producer_that_is_apart_is_cut_off_and_disturbs_none_of_the_others() -> None:
    settings = RelaySettings()
    reach = Reach(settings, lambda *_: None)
    producers = Producers("nowhere:1", settings, idempotent=True, reach=reach)
    shared: Any = Ends()
    apart: Any = Ends()
    producers._current = shared
    with producers.apart() as own:
        own._current = apart
        own.give_up(apart, LATE)
        assert (own._current, producers._current) == (None, shared)
    await producers.close()
    assert apart.ends == ["is cut off"]
    assert shared.ends == ["finishes what it has"]


async def test_only_the_producer_of_all_lanes_forgets_its_failures_when_nothing_more_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is apart tries for longer than that takes, and its pause is to grow."""
    calmed: list[Producers] = []

    async def started(_: object) -> None:
        pass

    monkeypatch.setattr("lethe_outbox.relay.producers.started", started)
    monkeypatch.setattr(Producers, "_calm", lambda one, _: calmed.append(one))
    settings = RelaySettings(publish_seconds=0.01, pause_max_seconds=0.01)
    reach = Reach(settings, lambda *_: None)
    producers = Producers("nowhere:1", settings, idempotent=True, reach=reach)
    there: Any = Ends()
    producers._current = there
    with producers.apart() as own:
        await own.current()
        producers._current, producers._failures = None, 1
        await producers.current()
        await until(lambda: calmed)
    assert calmed == [producers]
    await producers.close()
