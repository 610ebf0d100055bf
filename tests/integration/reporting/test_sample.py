"""The sampled gauges, from a real database."""

import asyncio
import math
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from lethe_contracts.events import Started
from lethe_reporting.metrics import ReportingMetrics
from lethe_reporting.sample import Sampler
from lethe_reporting.storage import MIGRATIONS, VERSION_TABLE
from lethe_reporting.storage.dead_letters import DeadLetters
from lethe_reporting.storage.requests import Requests
from lethe_runtime.database import DatabaseProbe
from tests.integration.reporting.running import Api
from tests.integration.reporting.story import Story
from tests.integration.reporting.test_dead_letters_api import bury
from tests.support.waiting import until

TIMESTAMP = "reporting_sample_timestamp_seconds"


async def sampled(api: Api) -> CollectorRegistry:
    registry = CollectorRegistry()
    probe = DatabaseProbe(api.engine, MIGRATIONS, VERSION_TABLE)
    await probe.ask()
    metrics = ReportingMetrics(registry)
    assert registry.get_sample_value(TIMESTAMP) == 0
    loop = Sampler(Requests(api.engine), DeadLetters(api.engine), metrics, probe)
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop))
    await until(lambda: registry.get_sample_value(TIMESTAMP), what="a sample")
    stop.set()
    await running
    return registry


async def test_an_empty_database_is_all_zeros_and_infinite_slack(api: Api) -> None:
    registry = await sampled(api)
    for topic in ("erasure.requests.v1.DLT", "erasure.events.v1.DLT"):
        assert registry.get_sample_value("reporting_dead_letters_open", {"topic": topic}) == 0
    assert registry.get_sample_value("reporting_requests", {"state": "verified"}) == 0
    assert registry.get_sample_value("reporting_deadline_slack_seconds") == math.inf
    assert registry.get_sample_value("reporting_dead_letter_oldest_seconds") == 0


async def test_the_most_urgent_open_request_decides_the_slack(api: Api) -> None:
    urgent, calm, done = (
        Story(due_in=timedelta(hours=2)),
        Story(),
        Story(due_in=timedelta(minutes=-30)),
    )
    await api.project(urgent.asked(), urgent.says(Started), calm.asked(), *done.life())
    for offset, state in ((1, "open"), (2, "open"), (3, "discarded")):
        await bury(api, offset, state=state)
    aged = "update lethe.dead_letter set recorded_at = now() - make_interval(hours => :hours)"
    await api.run(f'{aged} where "offset" = :offset', hours=1, offset=1)
    await api.run(f'{aged} where "offset" = :offset', hours=2, offset=3)
    registry = await sampled(api)
    slack = registry.get_sample_value("reporting_deadline_slack_seconds")
    assert slack == pytest.approx(7200, abs=120)
    for state, count in (("running", 1), ("requested", 1), ("verified", 1), ("blocked", 0)):
        assert registry.get_sample_value("reporting_requests", {"state": state}) == count
    name = "reporting_dead_letters_open"
    assert registry.get_sample_value(name, {"topic": "erasure.requests.v1.DLT"}) == 2
    assert registry.get_sample_value(name, {"topic": "erasure.events.v1.DLT"}) == 0
    oldest = registry.get_sample_value("reporting_dead_letter_oldest_seconds")
    assert oldest == pytest.approx(3600, abs=120)
