import os
from typing import Annotated

import pytest
from pydantic import AfterValidator
from pydantic_settings import SettingsConfigDict

from lethe_runtime.settings import DatabaseUrl, ServiceSettings, SettingsError, load, variables


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


class Sample(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="LETHE_SAMPLE_", frozen=True)

    database_url: DatabaseUrl
    lanes: Annotated[int, AfterValidator(_even)] = 2


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("LETHE_")]:
        monkeypatch.delenv(name)


URL = "postgresql+psycopg://who:s3cret@127.0.0.1/db"


def test_reads_its_variables_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_SAMPLE_DATABASE_URL", URL)
    monkeypatch.setenv("LETHE_SAMPLE_HTTP_PORT", "8099")
    monkeypatch.setenv("LETHE_SAMPLE_LOG_LEVEL", "")

    settings = load(Sample)

    assert settings.database_url.get_secret_value() == URL
    assert settings.http_port == 8099
    assert settings.log_level == "INFO"
    assert "s3cret" not in repr(settings)


def test_tells_every_error_at_once_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_SAMPLE_DATABASE_URL", "mysql://who:s3cret@host/db")
    monkeypatch.setenv("LETHE_SAMPLE_LANES", "3")
    monkeypatch.setenv("LETHE_SAMPLE_LOG_LEVEL", "LOUD")
    monkeypatch.setenv("LETHE_SAMPLE_DRAIN_SECOND", "4711")

    with pytest.raises(SettingsError) as caught:
        load(Sample)

    problems = dict(caught.value.problems)
    assert problems["LETHE_SAMPLE_DATABASE_URL"] == "must begin with postgresql+psycopg://"
    assert problems["LETHE_SAMPLE_HTTP_PORT"] == "is missing"
    assert problems["LETHE_SAMPLE_LANES"] == "must be even"
    assert "'INFO'" in problems["LETHE_SAMPLE_LOG_LEVEL"]
    assert (
        problems["LETHE_SAMPLE_DRAIN_SECOND"]
        == "is not a known variable; did you mean LETHE_SAMPLE_DRAIN_SECONDS?"
    )
    for value in ("s3cret", "LOUD", "4711"):
        assert value not in str(caught.value)


@pytest.mark.parametrize("unknown", ["LETHE_ZZZ", "lethe_zzz"])
def test_an_unknown_variable_alone_is_an_error(
    monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    monkeypatch.setenv("LETHE_SAMPLE_DATABASE_URL", URL)
    monkeypatch.setenv("lethe_sample_http_port", "8099")
    assert load(Sample).http_port == 8099
    monkeypatch.setenv(unknown, "1")

    with pytest.raises(SettingsError, match=rf"{unknown}: is not a known variable$"):
        load(Sample)


def test_names_every_variable_of_a_class() -> None:
    assert variables(Sample) == {
        "LETHE_SAMPLE_DATABASE_URL",
        "LETHE_SAMPLE_LANES",
        "LETHE_SAMPLE_LOG_LEVEL",
        "LETHE_SAMPLE_HTTP_HOST",
        "LETHE_SAMPLE_HTTP_PORT",
        "LETHE_SAMPLE_SENTRY_DSN",
        "LETHE_SAMPLE_DRAIN_SECONDS",
    }
