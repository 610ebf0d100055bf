"""A transactional outbox for SQLAlchemy and Kafka: ordered per key, lossless, inbox included."""

from lethe_outbox.errors import (
    LeaseError,
    LetheOutboxError,
    MessageError,
    OffsetsLostError,
    PartitionCountError,
    PoisonError,
    ReorderError,
)
from lethe_outbox.message import BUCKETS, EVENT_ID_HEADER, Message, bucket_of
from lethe_outbox.outbox import Outbox
from lethe_outbox.schema import OutboxTables, Status

__all__ = [
    "BUCKETS",
    "EVENT_ID_HEADER",
    "LeaseError",
    "LetheOutboxError",
    "Message",
    "MessageError",
    "OffsetsLostError",
    "Outbox",
    "OutboxTables",
    "PartitionCountError",
    "PoisonError",
    "ReorderError",
    "Status",
    "bucket_of",
]
