"""Every variable of intake: `LETHE_INTAKE_...`."""

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from lethe_contracts.keyring import KeyRing
from lethe_contracts.topics import RETENTION_DAYS
from lethe_outbox import Brokers
from lethe_runtime.kafka import KafkaSettings
from lethe_runtime.settings import DatabaseUrl, RedisUrl


def _key_ring(text: SecretStr) -> SecretStr:
    KeyRing.parse(text.get_secret_value())
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be a time zone of the IANA database, e.g. Asia/Seoul") from None
    return name


KeyRingText = Annotated[SecretStr, AfterValidator(_key_ring)]
"""A key ring as text: `1:<base64url of 32 bytes>,2:...`; the highest version is current."""


class IntakeSettings(KafkaSettings):
    """What intake can be told."""

    model_config = SettingsConfigDict(env_prefix="LETHE_INTAKE_", frozen=True)

    database_url: DatabaseUrl
    """The database `intake`."""
    redis_url: RedisUrl | None = None
    """The inbox's fast path; without it consuming is slower and as right."""
    inbox_keep_days: Annotated[int, Field(gt=RETENTION_DAYS, le=3650)] = 35
    """How long an event that was handled is recognised; longer than any topic keeps its records."""
    subject_ref_keys: KeyRingText
    """Keys that turn a subject into its `subject_ref`; the same in every service."""
    subject_ref_current: Annotated[int, Field(ge=1)] | None = None
    """The version of `subject_ref_keys` under which new requests are kept; the highest, if not set.
    For a rotation: every instance must know a key before one of them writes under it."""
    subject_cipher_keys: KeyRingText
    """Keys that encrypt the subject on its way to the eraser."""
    subject_zone: Annotated[str, AfterValidator(_zone)] = "Asia/Seoul"
    """The time zone in which a deadline's days are counted."""
    body_limit_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = 65_536
    """The largest request body that is read, in bytes."""
    watermark_seconds: Annotated[float, Field(ge=0.1, le=60)] = 30
    """How often the eraser is told how fresh what it knows is; it erases nobody on what is older
    than `LETHE_ERASER_CONTROL_FRESH_SECONDS`."""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080

    @field_validator("subject_ref_current")
    @classmethod
    def _is_in_the_ring(cls, version: int | None, others: ValidationInfo) -> int | None:
        ring: SecretStr | None = others.data.get("subject_ref_keys")
        if version is None or ring is None:
            return version
        if version not in KeyRing.parse(ring.get_secret_value()).keys:
            raise ValueError("must be a version of LETHE_INTAKE_SUBJECT_REF_KEYS")
        return version

    @property
    def brokers(self) -> Brokers:
        """How Kafka is reached."""
        return Brokers(**self.kafka)
