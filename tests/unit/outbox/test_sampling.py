"""How often an outbox is sampled, by a clock of the test's own."""

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


@pytest.mark.parametrize(
    ("took", "samples"), [(0.1, 20), (5.0, 4)], ids=["every ten seconds", "a tenth of the time"]
)
async def test_counting_takes_no_more_than_a_tenth_of_the_time(
    took: float, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, began = 0.0, list[float]()

    async def slow(sampler: Sampler) -> None:
        nonlocal now
        del sampler
        began.append(now)
        now += took

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now >= 200:
            raise EndError

    monkeypatch.setattr(Sampler, "_sample", slow)
    monkeypatch.setattr(Sampler, "_forget", lambda _: None)
    monkeypatch.setattr(sample, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(sample, "time", SimpleNamespace(monotonic=lambda: now))
    metrics = RelayMetrics(CollectorRegistry())
    sampler = Sampler("tested", "postgresql+psycopg://nowhere", None, metrics, RelaySettings())
    with pytest.raises(EndError):
        await sampler.run({0: Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 1)})
    assert samples - 2 <= len(began) <= samples
