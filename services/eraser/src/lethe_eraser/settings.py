"""Every setting of the eraser: `LETHE_ERASER_<NAME>`."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import SettingsConfigDict

from lethe_contracts.errors import KeyRingError
from lethe_contracts.keyring import KeyRing
from lethe_contracts.topics import RETENTION_DAYS
from lethe_eraser.pace import ROWS_PER_SECOND
from lethe_eraser.window import ALWAYS, Window
from lethe_outbox import Brokers
from lethe_runtime.kafka import KafkaSettings
from lethe_runtime.settings import DatabaseUrl, RedisUrl

REGION: Final = r"^[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"
"""What a region may be called; boto ends amid the first call on anything else."""

_ENDPOINT: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?/?")


def _endpoint(text: str) -> str:
    if _ENDPOINT.fullmatch(text) is None:
        raise ValueError("write http://host:port or https://host")
    return text


Endpoint = Annotated[str, AfterValidator(_endpoint)]
"""Where another S3 or CDN than AWS's answers, as boto takes it."""


def _key_ring(text: SecretStr) -> SecretStr:
    try:
        KeyRing.parse(text.get_secret_value())
    except KeyRingError as error:
        raise ValueError(str(error)) from None
    return text


class EraserSettings(KafkaSettings):
    """What the eraser can be told."""

    model_config = SettingsConfigDict(env_prefix="LETHE_ERASER_", frozen=True)

    http_port: Annotated[int, Field(ge=0, le=65535)] = 8082
    database_url: DatabaseUrl
    """The product's database; the eraser's own tables live in its schema `lethe`."""
    redis_url: RedisUrl | None = None
    """Makes recognising repeated events faster; everything works without."""
    inbox_keep_days: Annotated[int, Field(gt=RETENTION_DAYS, le=3650)] = 35
    """How long an event that was handled is recognised; longer than any topic keeps its records."""
    catalog: FilePath
    """What the product's tables, buckets and hosts are (YAML)."""
    subject_cipher_keys: Annotated[SecretStr, AfterValidator(_key_ring)]
    """`<version>:<base64url of 32 bytes>`, separated by commas."""
    subject_ref_keys: Annotated[SecretStr, AfterValidator(_key_ring)] | None = None
    """Intake's ring of the same name, all its versions; without it `lethe eraser preview` does not
    know the person's job and holds. Nothing else needs it."""
    window: str = "01:00-05:00"
    """When erasing is allowed: `HH:MM-HH:MM` or `always`."""
    window_tz: str = "Asia/Seoul"
    """The time zone of `window`."""
    control_fresh_seconds: Annotated[float, Field(ge=5, le=3600)] = 120
    """Nobody is erased while the newest control watermark of their bucket is older than this: a
    hold may be stuck on its way. Four rounds of `LETHE_INTAKE_WATERMARK_SECONDS` by default."""
    s3_endpoint_url: Endpoint | None = None
    """Another S3 than AWS's."""
    s3_region: Annotated[str, Field(pattern=REGION)] = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    """Without keys, boto's own chain of credentials is used."""
    s3_threads: Annotated[int, Field(ge=1, le=64)] = 8
    """Calls to S3 at once."""
    s3_page_keys: Annotated[int, Field(ge=1, le=1000)] = 250
    """Keys per DeleteObjects; smaller pages are kinder to a busy prefix."""
    s3_prefix_keys_per_second: Annotated[int, Field(ge=1)] = 10_000
    """The most keys a second that this process asks one prefix of a bucket to delete: with several
    erasers, what the prefix may be asked for divided by their number."""
    cdn_endpoint_url: Endpoint | None = None
    """Another CloudFront than AWS's; the credentials are those of S3."""
    batch_rows: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Client rows per batch."""
    rows_per_second: Annotated[int, Field(ge=1)] = ROWS_PER_SECOND
    """The most rows a second of the product's tables that this process masks, all persons together;
    features, tasks and client rows count alike. With several erasers, what the database may be
    asked for divided by their number."""
    concurrency: Annotated[int, Field(ge=1, le=32)] = 2
    """People erased at once."""

    @field_validator("window")
    @classmethod
    def _is_a_window(cls, text: str) -> str:
        Window.parse(text, "UTC")
        return text

    @field_validator("window_tz")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        Window.parse(ALWAYS, name)
        return name

    @field_validator("s3_secret_access_key")
    @classmethod
    def _is_with_its_id(cls, secret: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if (others.data.get("s3_access_key_id") is None) is not (secret is None):
            raise ValueError("comes together with LETHE_ERASER_S3_ACCESS_KEY_ID, or neither does")
        return secret

    @property
    def key_ring(self) -> KeyRing:
        """The keys that open subjects and the journal."""
        return KeyRing.parse(self.subject_cipher_keys.get_secret_value())

    @property
    def ref_key_ring(self) -> KeyRing | None:
        """The keys that make references of subjects, if they are known."""
        if self.subject_ref_keys is None:
            return None
        return KeyRing.parse(self.subject_ref_keys.get_secret_value())

    @property
    def erasing_window(self) -> Window:
        """When erasing is allowed."""
        return Window.parse(self.window, self.window_tz)

    @property
    def control_fresh(self) -> timedelta:
        """How old a control watermark may be."""
        return timedelta(seconds=self.control_fresh_seconds)

    @property
    def catalog_path(self) -> Path:
        """Where the catalog is."""
        return Path(self.catalog)

    @property
    def brokers(self) -> Brokers:
        """How Kafka is reached."""
        return Brokers(**self.kafka)
