"""The composition root builds everything it names, and nothing reaches out while it does."""

import pytest
from dependency_injector import providers

from lethe_reporting.consumer import DEAD_LETTER_GROUP
from lethe_reporting.container import ReportingContainer, loops
from lethe_reporting.settings import ReportingSettings
from lethe_runtime.settings import SettingsError, load

VALUES = {
    "DATABASE_URL": "postgresql+psycopg://nobody:secret@127.0.0.1:1/reporting",
    "KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "REDIS_URL": "redis://127.0.0.1:1/0",
}


def settings(monkeypatch: pytest.MonkeyPatch, **values: str) -> ReportingSettings:
    for name, value in values.items():
        monkeypatch.setenv(f"LETHE_REPORTING_{name}", value)
    return load(ReportingSettings)


async def test_every_provider_builds_without_reaching_out(monkeypatch: pytest.MonkeyPatch) -> None:
    container = ReportingContainer(settings=settings(monkeypatch, **VALUES))
    container.check_dependencies()
    for name, provider in container.providers.items():
        if not isinstance(provider, providers.Dependency):
            assert provider() is not None, name
    assert set(loops(container)) == {
        "http",
        "consumer",
        "dead-letters",
        "inbox",
        "database",
        "kafka",
        "redis",
        "sample",
    }


async def test_without_redis_nothing_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    container = ReportingContainer(settings=settings(monkeypatch, **{**VALUES, "REDIS_URL": ""}))
    assert "redis" not in loops(container)
    assert container.fast_path() is None
    assert "redis" not in container.readiness().report().dependencies


async def test_a_group_that_stands_still_is_told_although_kafka_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    container = ReportingContainer(settings=settings(monkeypatch, **VALUES))
    readiness = container.readiness()
    for name in readiness.report().dependencies:
        readiness.ok(name)
    assert readiness.report().ready
    reader, runner = container.reader(), container.runner()
    reader._poller._tell("away", "OffsetsLostError")
    runner._poller._tell("ok", "")
    readiness.ok("kafka")
    assert not readiness.report().ready
    assert readiness.report().dependencies[DEAD_LETTER_GROUP].error_class == "OffsetsLostError"


def test_all_that_is_wrong_with_the_settings_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(monkeypatch, DATABASE_URL="mysql://u:secret@h/d", HTTP_PROT="8083")
    said = str(refused.value)
    assert "LETHE_REPORTING_DATABASE_URL" in said
    assert "LETHE_REPORTING_KAFKA_BOOTSTRAP: is missing" in said
    assert "did you mean LETHE_REPORTING_HTTP_PORT?" in said
    assert "secret" not in said
