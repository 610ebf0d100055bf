import os

import pytest

from lethe_contracts.keyring import KeyRing
from lethe_intake.settings import IntakeSettings
from lethe_runtime.settings import SettingsError, load

RING = KeyRing({1: b"1" * 32}).render()


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("LETHE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LETHE_INTAKE_DATABASE_URL", "postgresql+psycopg://a:s3cret@h/intake")
    monkeypatch.setenv("LETHE_INTAKE_KAFKA_BOOTSTRAP", "h:9092")
    monkeypatch.setenv("LETHE_INTAKE_SUBJECT_REF_KEYS", RING)
    monkeypatch.setenv("LETHE_INTAKE_SUBJECT_CIPHER_KEYS", RING)


def test_the_least_that_is_needed() -> None:
    settings = load(IntakeSettings)

    assert settings.http_port == 8080
    assert settings.subject_zone == "Asia/Seoul"
    assert settings.body_limit_bytes == 65_536
    assert settings.redis_url is None


def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_INTAKE_REDIS_URL", "redis://:s3cret@h")
    shown = repr(load(IntakeSettings))

    assert "s3cret" not in shown
    assert RING.partition(":")[2] not in shown


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("SUBJECT_REF_KEYS", "1:abc", "key 1 has"),
        ("SUBJECT_REF_CURRENT", "7", "must be a version of LETHE_INTAKE_SUBJECT_REF_KEYS"),
        ("SUBJECT_CIPHER_KEYS", "s3cret", "entry 1 is not <version>:<base64url key>"),
        ("SUBJECT_ZONE", "Mars/Olympus", "must be a time zone of the IANA database"),
        ("SUBJECT_ZONE", "../etc/passwd", "must be a time zone of the IANA database"),
        ("BODY_LIMIT_BYTES", "12", "greater than or equal to 1024"),
        ("HTTP_PORT", "70000", "less than or equal to 65535"),
        ("DATABASE_URL", "postgresql://h/intake", "must begin with postgresql+psycopg://"),
        ("DRAIN_SECONDS", "0", "greater than 0"),
    ],
)
def test_what_is_wrong_is_said_without_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, what: str
) -> None:
    monkeypatch.setenv(f"LETHE_INTAKE_{variable}", value)

    with pytest.raises(SettingsError) as caught:
        load(IntakeSettings)

    ((name, told),) = caught.value.problems
    assert name == f"LETHE_INTAKE_{variable}"
    assert what in told
    assert value not in told.replace(what, "")
