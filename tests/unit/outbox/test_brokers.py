"""What the clients of aiokafka are told about brokers, and what makes no sense."""

import ssl
from typing import Any

import pytest
from aiokafka.abc import AbstractTokenProvider

from lethe_outbox import ArgumentError, Brokers
from lethe_outbox.kafka.brokers import client_arguments


class Tokens(AbstractTokenProvider):  # type: ignore[misc] # aiokafka has no types
    async def token(self) -> str:
        return "token"


TLS = ssl.create_default_context()
LOGIN: dict[str, Any] = {"mechanism": "SCRAM-SHA-256", "username": "shop", "password": "s3cret"}


@pytest.mark.parametrize(
    ("more", "protocol", "mechanism"),
    [
        ({}, "PLAINTEXT", "PLAIN"),
        ({"tls": TLS}, "SSL", "PLAIN"),
        (LOGIN, "SASL_PLAINTEXT", "SCRAM-SHA-256"),
        (LOGIN | {"tls": TLS}, "SASL_SSL", "SCRAM-SHA-256"),
        ({"tls": TLS, "tokens": Tokens()}, "SASL_SSL", "OAUTHBEARER"),
    ],
    ids=["open", "tls", "login", "both", "tokens"],
)
def test_each_way_in_is_said_in_the_words_of_aiokafka(
    more: dict[str, Any], protocol: str, mechanism: str
) -> None:
    told = client_arguments(Brokers("broker:9093", **more))
    assert told["bootstrap_servers"] == "broker:9093"
    assert (told["security_protocol"], told["sasl_mechanism"]) == (protocol, mechanism)
    assert told["ssl_context"] is more.get("tls")
    assert told["sasl_plain_username"] == more.get("username")
    assert told["sasl_plain_password"] == more.get("password")
    assert told["sasl_oauth_token_provider"] is more.get("tokens")


def test_text_names_brokers_that_let_everybody_in() -> None:
    assert client_arguments("broker:9092") == client_arguments(Brokers("broker:9092"))


@pytest.mark.parametrize("left", list(LOGIN))
def test_half_a_login_is_refused(left: str) -> None:
    with pytest.raises(ArgumentError, match="go together"):
        Brokers("broker:9093", **{name: one for name, one in LOGIN.items() if name != left})


def test_tokens_and_a_password_are_refused() -> None:
    with pytest.raises(ArgumentError, match="take the place"):
        Brokers("broker:9093", tokens=Tokens(), **LOGIN)


def test_a_password_is_in_no_repr() -> None:
    assert "s3cret" not in repr(Brokers("broker:9093", **LOGIN))
