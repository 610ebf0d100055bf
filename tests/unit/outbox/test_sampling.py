"""How often an outbox is sampled, by a clock of the test's own."""

from collections.abc import Iterator
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from lethe_outbox import RelayMetrics
from lethe_outbox.relay import sample
from lethe_outbox.relay.lane import Lane, Lease
from lethe_outbox.relay.sample import Sampler
from lethe_outbox.relay.settings import RelaySettings


class EndError(Exception):
    """The time of the test is over."""


async def _begun(
    took: Iterator[float], until: float, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """Sample until that time, each sample as long as `took` says; give when each began."""
    now, began = 0.0, list[float]()

    async def slow(sampler: Sampler) -> None:
        nonlocal now
        del sampler
        began.append(now)
        now += next(took)

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now >= until:
            raise EndError

    monkeypatch.setattr(Sampler, "_sample", slow)
    monkeypatch.setattr(Sampler, "_forget", lambda _: None)
    monkeypatch.setattr(sample, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(sample, "time", SimpleNamespace(monotonic=lambda: now))
    metrics = RelayMetrics(CollectorRegistry())
    sampler = Sampler("tested", "postgresql+psycopg://nowhere", None, metrics, RelaySettings())
    with pytest.raises(EndError):
        await sampler.run({0: Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 1)})
    return began


@pytest.mark.parametrize(
    ("took", "samples"), [(0.1, 20), (5.0, 4)], ids=["every ten seconds", "a tenth of the time"]
)
async def test_counting_takes_no_more_than_a_tenth_of_the_time(
    took: float, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = await _begun(repeat(took), 200, monkeypatch)
    assert samples - 2 <= len(began) <= samples


async def test_a_relay_that_was_frozen_amid_a_sample_is_not_blind_for_long_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen = 600.0
    began = await _begun(chain([frozen], repeat(0.1)), frozen + 200, monkeypatch)
    assert began[1] <= frozen + 10
