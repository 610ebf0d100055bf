import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pydantic_settings import SettingsConfigDict

from lethe_runtime.kafka import KafkaSettings
from lethe_runtime.settings import SettingsError, load
from tests.support.guarded_kafka import certify


class Sample(KafkaSettings):
    model_config = SettingsConfigDict(env_prefix="LETHE_SAMPLE_", frozen=True)


LOGIN = {"SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": "who", "SASL_PASSWORD": "s3cret"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("LETHE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, str]:
    certificate, key = certify()
    (tmp_path / "own.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "locked.pem").write_bytes(locked(key))
    (tmp_path / "empty.pem").touch()
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def locked(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"s3cret"),
    )


def told(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> Sample:
    monkeypatch.setenv("LETHE_SAMPLE_HTTP_PORT", "0")
    for name, value in ({"BOOTSTRAP": "broker:9092"} | values).items():
        monkeypatch.setenv(f"LETHE_SAMPLE_KAFKA_{name}", value)
    return load(Sample)


def test_addresses_alone_are_brokers_that_let_everybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, {}).kafka == {
        "bootstrap": "broker:9092",
        "tls": None,
        "mechanism": None,
        "username": None,
        "password": None,
    }


def test_a_login_and_certificates_are_what_the_clients_are_given(
    monkeypatch: pytest.MonkeyPatch, pem: dict[str, str]
) -> None:
    files = {"CA_FILE": pem["own"], "CERTIFICATE_FILE": pem["own"], "KEY_FILE": pem["key"]}
    settings = told(monkeypatch, {"TLS": "true"} | files | LOGIN)
    access = settings.kafka
    login = (access["mechanism"], access["username"], access["password"])
    assert login == ("SCRAM-SHA-512", "who", "s3cret")
    assert access["tls"] is not None
    assert access["tls"].verify_mode is ssl.CERT_REQUIRED
    assert access["tls"].check_hostname
    assert access["tls"].cert_store_stats()["x509"] == 1
    assert "s3cret" not in repr(settings)


def test_without_authorities_of_its_own_the_system_s_are_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = told(monkeypatch, {"TLS": "true"}).kafka["tls"]
    assert tls is not None
    assert tls.cert_store_stats() == ssl.create_default_context().cert_store_stats()


@pytest.mark.parametrize("left", list(LOGIN))
def test_half_a_login_is_refused(monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    half = {name: value for name, value in LOGIN.items() if name != left}
    with pytest.raises(SettingsError, match="LETHE_SAMPLE_KAFKA_SASL_PASSWORD go together") as no:
        told(monkeypatch, half)
    assert "s3cret" not in str(no.value)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"CA_FILE": "own"}, "KAFKA_CA_FILE count only with LETHE_SAMPLE_KAFKA_TLS=true"),
        ({"TLS": "true", "CA_FILE": "empty"}, r"CA_FILE holds no certificates as PEM \(SSLError\)"),
        ({"TLS": "true", "CERTIFICATE_FILE": "own"}, "KAFKA_KEY_FILE go together"),
        (
            {"TLS": "true", "CERTIFICATE_FILE": "own", "KEY_FILE": "own"},
            "hold no certificate with its unencrypted key",
        ),
        (
            {"TLS": "true", "CERTIFICATE_FILE": "own", "KEY_FILE": "locked"},
            # Asked for its password, there would be no terminal: an OSError.
            r"hold no certificate with its unencrypted key \(SSLError\)",
        ),
    ],
)
def test_certificates_that_are_of_no_use_are_refused(
    monkeypatch: pytest.MonkeyPatch, pem: dict[str, str], values: dict[str, str], what: str
) -> None:
    with pytest.raises(SettingsError, match=what):
        told(monkeypatch, {name: pem.get(value, value) for name, value in values.items()})


def test_a_file_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="LETHE_SAMPLE_KAFKA_CA_FILE: Path does not point"):
        told(monkeypatch, {"TLS": "true", "CA_FILE": "/nowhere/ca.pem"})
