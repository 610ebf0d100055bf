"""The settings by which a service reaches Kafka: addresses, TLS, and as whom."""

import ssl
from collections.abc import Iterable
from typing import Annotated, Literal, TypedDict

from pydantic import Field, FilePath, SecretStr, model_validator

from lethe_runtime.settings import ServiceSettings

SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaAccess(TypedDict):
    """How Kafka is reached: the arguments of `lethe_outbox.Brokers`."""

    bootstrap: str
    tls: ssl.SSLContext | None
    mechanism: SaslMechanism | None
    username: str | None
    password: str | None


class KafkaSettings(ServiceSettings):
    """What a service that speaks to Kafka can be told."""

    kafka_bootstrap: Annotated[str, Field(min_length=1)]
    """`host:port`, several separated by commas."""
    kafka_tls: bool = False
    """Speak TLS with the brokers, and check their certificates."""
    kafka_ca_file: FilePath | None = None
    """Certificates, as PEM, of who may have signed the brokers'; the system's, if not set."""
    kafka_certificate_file: FilePath | None = None
    """This service's own certificate, as PEM, for brokers that ask for one; with its key in
    `kafka_key_file`."""
    kafka_key_file: FilePath | None = None
    """The key of `kafka_certificate_file`, as PEM without a password."""
    kafka_sasl_mechanism: SaslMechanism | None = None
    """Log in with `kafka_sasl_username` and `kafka_sasl_password`."""
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> "KafkaSettings":
        own = ("kafka_certificate_file", "kafka_key_file")
        self._all_or_none("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")
        self._all_or_none(*own)
        given = [name for name in ("kafka_ca_file", *own) if getattr(self, name) is not None]
        if given and not self.kafka_tls:
            raise ValueError(
                f"{self._named(given)} count only with {self._named(['kafka_tls'])}=true"
            )
        self._tls()
        return self

    def _all_or_none(self, *names: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if given and len(given) < len(names):
            raise ValueError(f"{self._named(names)} go together")

    def _named(self, names: Iterable[str]) -> str:
        prefix = self.model_config.get("env_prefix", "")
        return " and ".join(f"{prefix}{name.upper()}" for name in names)

    @property
    def kafka(self) -> KafkaAccess:
        """How Kafka is reached."""
        password = self.kafka_sasl_password
        return {
            "bootstrap": self.kafka_bootstrap,
            "tls": self._tls(),
            "mechanism": self.kafka_sasl_mechanism,
            "username": self.kafka_sasl_username,
            "password": None if password is None else password.get_secret_value(),
        }

    def _tls(self) -> ssl.SSLContext | None:
        if not self.kafka_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.kafka_ca_file)
        except OSError as error:
            unread = self._named(["kafka_ca_file"])
            name = type(error).__name__
            raise ValueError(f"{unread} holds no certificates as PEM ({name})") from None
        if self.kafka_certificate_file is not None:
            try:
                # Without a password OpenSSL would ask the terminal for that of an encrypted key.
                context.load_cert_chain(
                    self.kafka_certificate_file, self.kafka_key_file, password=""
                )
            except OSError as error:
                unread = self._named(["kafka_certificate_file", "kafka_key_file"])
                name = type(error).__name__
                raise ValueError(
                    f"{unread} hold no certificate with its unencrypted key ({name})"
                ) from None
        return context
