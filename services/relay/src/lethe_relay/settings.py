"""Every setting of the relay: `LETHE_RELAY_<NAME>`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from lethe_outbox import Brokers
from lethe_runtime.kafka import KafkaSettings
from lethe_runtime.settings import DatabaseUrl


class RelaySettings(KafkaSettings):
    """What the relay can be told."""

    model_config = SettingsConfigDict(env_prefix="LETHE_RELAY_", frozen=True)

    http_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    intake_database_url: DatabaseUrl
    """The database of intake's outbox."""
    product_database_url: DatabaseUrl
    """The database of the eraser's outbox."""
    kafka_replication_factor: Annotated[int, Field(ge=1, le=9)] = 1
    """Copies of the topics that `lethe migrate` creates; 3 wherever a broker's loss must lose
    nothing (`docs/guarantees.md`)."""
    listen: bool = True
    """Hear the hints by which writers tell of a commit; off, the outboxes are only polled."""
    sent_retention_days: Annotated[float, Field(gt=0, le=3650)] = 30
    """How long sent rows stay in an outbox at least, in days; a month's partition goes when its
    newest row is that old."""
    janitor_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600
    """How often the partitions of the outboxes are made and dropped, in seconds; 0 leaves that to
    somebody else."""
    months_ahead: Annotated[int, Field(ge=1, le=24)] = 2
    """Monthly partitions that are made after the current month's."""

    @property
    def brokers(self) -> Brokers:
        """How Kafka is reached."""
        return Brokers(**self.kafka)
