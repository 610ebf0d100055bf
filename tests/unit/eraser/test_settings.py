from datetime import UTC, datetime
from pathlib import Path

import pytest

from lethe_contracts.keyring import KeyRing
from lethe_eraser.settings import EraserSettings
from lethe_runtime.settings import SettingsError, load


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").touch()
    for name, value in {
        "DATABASE_URL": "postgresql+psycopg://user:word@db/product",
        "KAFKA_BOOTSTRAP": "kafka:9092",
        "CATALOG": str(tmp_path / "catalog.yaml"),
        "SUBJECT_CIPHER_KEYS": KeyRing.generate().render(),
    }.items():
        monkeypatch.setenv(f"LETHE_ERASER_{name}", value)


def test_what_has_a_default_need_not_be_said() -> None:
    settings = load(EraserSettings)
    assert (settings.window, settings.window_tz) == ("01:00-05:00", "Asia/Seoul")
    assert (settings.batch_rows, settings.concurrency, settings.s3_threads) == (500, 2, 8)
    assert settings.rows_per_second == 10_000
    assert settings.http_port == 8082
    assert settings.key_ring.current == 1
    assert settings.erasing_window.is_open(datetime(2026, 11, 20, 17, tzinfo=UTC))


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WINDOW", "whenever", "LETHE_ERASER_WINDOW: write HH:MM-HH:MM"),
        ("WINDOW_TZ", "Asia/Soul", "LETHE_ERASER_WINDOW_TZ: no such time zone"),
        ("CATALOG", "/nowhere/catalog.yaml", "LETHE_ERASER_CATALOG"),
        ("SUBJECT_CIPHER_KEYS", "secret-in-plain", "LETHE_ERASER_SUBJECT_CIPHER_KEYS"),
        ("DATABASE_URL", "mysql://user:secret-in-plain@db", "postgresql+psycopg://"),
        ("BATCH_ROWS", "0", "LETHE_ERASER_BATCH_ROWS"),
        ("ROWS_PER_SECOND", "0", "LETHE_ERASER_ROWS_PER_SECOND"),
        ("S3_ACCESS_KEY_ID", "half", "LETHE_ERASER_S3_SECRET_ACCESS_KEY: comes together"),
        ("S3_ENDPOINT_URL", "s3:7070", "LETHE_ERASER_S3_ENDPOINT_URL: write http://host:port"),
        ("S3_ENDPOINT_URL", "http://[secret-in-plain", "LETHE_ERASER_S3_ENDPOINT_URL: write"),
        ("CDN_ENDPOINT_URL", "nowhere", "LETHE_ERASER_CDN_ENDPOINT_URL: write http://host:port"),
        (
            "REDIS_URL",
            "redis://:secret-in-plain/@h:6379",
            "LETHE_ERASER_REDIS_URL: is no URL; write special",
        ),
        ("REDIS_URL", "localhost:6379", "LETHE_ERASER_REDIS_URL: must begin with redis://"),
        (
            "DATABASE_URL",
            "postgresql+psycopg://u:p@ss:secret-in-plain@h:5432/db",
            "LETHE_ERASER_DATABASE_URL: is no URL; write special characters of the password as",
        ),
        ("S3_REGION", "no region", "LETHE_ERASER_S3_REGION"),
        ("BATCH_ROW", "5", "did you mean LETHE_ERASER_BATCH_ROWS?"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"LETHE_ERASER_{variable}", value)
    with pytest.raises(SettingsError) as refused:
        load(EraserSettings)
    assert says in str(refused.value)
    assert "secret-in-plain" not in str(refused.value)
