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
    await bury(api, 1)
    await bury(api, 2, state="discarded")
    registry = await sampled(api)
    slack = registry.get_sample_value("reporting_deadline_slack_seconds")
    assert slack == pytest.approx(7200, abs=120)
    for state, count in (("running", 1), ("requested", 1), ("verified", 1), ("blocked", 0)):
        assert registry.get_sample_value("reporting_requests", {"state": state}) == count
    name = "reporting_dead_letters_open"
    assert registry.get_sample_value(name, {"topic": "erasure.requests.v1.DLT"}) == 1
    assert registry.get_sample_value(name, {"topic": "erasure.events.v1.DLT"}) == 0
    oldest = registry.get_sample_value("reporting_dead_letter_oldest_seconds")
    assert oldest is not None
    assert oldest >= 0
