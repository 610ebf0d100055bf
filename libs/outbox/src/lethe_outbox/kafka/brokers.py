"""How Kafka is reached: where its brokers are, over TLS or not, and as whom."""

from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Literal

from aiokafka.abc import AbstractTokenProvider

from lethe_outbox.errors import ArgumentError

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class Brokers:
    """The brokers, and what they want to see of a client.

    Raises:
        ArgumentError: a mechanism, a name and a password do not come together, or with `tokens`.
    """

    bootstrap: str
    """`host:port,...`."""
    tls: SSLContext | None = None
    """Speak TLS; `ssl.create_default_context()` checks the brokers' certificates, and its
    `load_cert_chain` shows one of one's own."""
    mechanism: Mechanism | None = None
    """Log in by SASL with `username` and `password`."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tokens: AbstractTokenProvider | None = None
    """Log in by SASL OAUTHBEARER with what this gives, as AWS IAM and Azure want it."""

    def __post_init__(self) -> None:
        given = {one is not None for one in (self.mechanism, self.username, self.password)}
        if len(given) > 1:
            raise ArgumentError("mechanism, username and password go together")
        if self.tokens is not None and True in given:
            raise ArgumentError("tokens take the place of mechanism, username and password")


Bootstrap = str | Brokers
"""Brokers that let everybody in can be named by their addresses alone."""


def client_arguments(bootstrap: Bootstrap) -> dict[str, Any]:
    """Give what every client of aiokafka takes to connect."""
    brokers = Brokers(bootstrap) if isinstance(bootstrap, str) else bootstrap
    mechanism = brokers.mechanism if brokers.tokens is None else "OAUTHBEARER"
    transport = "PLAINTEXT" if brokers.tls is None else "SSL"
    return {
        "bootstrap_servers": brokers.bootstrap,
        "security_protocol": transport if mechanism is None else f"SASL_{transport}",
        "ssl_context": brokers.tls,
        # Where it is not used it must be one that aiokafka knows all the same.
        "sasl_mechanism": mechanism or "PLAIN",
        "sasl_plain_username": brokers.username,
        "sasl_plain_password": brokers.password,
        "sasl_oauth_token_provider": brokers.tokens,
    }
