"""Every variable of reporting: `LETHE_REPORTING_...`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from lethe_contracts.topics import RETENTION_DAYS
from lethe_outbox import Brokers
from lethe_runtime.kafka import KafkaSettings
from lethe_runtime.settings import DatabaseUrl, RedisUrl


class ReportingSettings(KafkaSettings):
    """What reporting can be told."""

    model_config = SettingsConfigDict(env_prefix="LETHE_REPORTING_", frozen=True)

    database_url: DatabaseUrl
    """The database `reporting`."""
    redis_url: RedisUrl | None = None
    """The inbox's fast path; without it consuming is slower and as right."""
    inbox_keep_days: Annotated[int, Field(gt=RETENTION_DAYS, le=3650)] = 35
    """How long an event that was handled is recognised; longer than any topic keeps its records."""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8083

    @property
    def brokers(self) -> Brokers:
        """How Kafka is reached."""
        return Brokers(**self.kafka)
