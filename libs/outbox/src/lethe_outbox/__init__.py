"""A transactional outbox for SQLAlchemy and Kafka: ordered per key, lossless, inbox included."""

from lethe_outbox.consumer import ConsumerRunner, ConsumerSettings
from lethe_outbox.dead_letter_topic import dead_letter_topic
from lethe_outbox.dead_letters import DeadLetterReader, Replayed, replay
from lethe_outbox.errors import (
    ConnectionKindError,
    LeaseError,
    LetheOutboxError,
    MessageError,
    OffsetsLostError,
    PartitionCountError,
    PoisonError,
    RelaySettingsError,
    ReorderError,
    TopicMissingError,
    TransactionError,
    UnsafeDatabaseError,
    UnsupportedDatabaseError,
)
from lethe_outbox.groups import initialise_group
from lethe_outbox.inbox import FastPath, Inbox
from lethe_outbox.message import BUCKETS, EVENT_ID_HEADER, Message, bucket_of
from lethe_outbox.metrics import ConsumerMetrics, RelayMetrics
from lethe_outbox.operations import OutboxStatus, RefusedRow, refused, requeue, status
from lethe_outbox.outbox import Outbox
from lethe_outbox.quarantine import DeadRecord
from lethe_outbox.record import Record
from lethe_outbox.relay import Relay, RelaySettings
from lethe_outbox.schema import OutboxTables, Status
from lethe_outbox.settled import settled_until
from lethe_outbox.topics import TopicSpec, TopicsProbe, check_partitions, ensure_topics

__all__ = [
    "BUCKETS",
    "EVENT_ID_HEADER",
    "ConnectionKindError",
    "ConsumerMetrics",
    "ConsumerRunner",
    "ConsumerSettings",
    "DeadLetterReader",
    "DeadRecord",
    "FastPath",
    "Inbox",
    "LeaseError",
    "LetheOutboxError",
    "Message",
    "MessageError",
    "OffsetsLostError",
    "Outbox",
    "OutboxStatus",
    "OutboxTables",
    "PartitionCountError",
    "PoisonError",
    "Record",
    "RefusedRow",
    "Relay",
    "RelayMetrics",
    "RelaySettings",
    "RelaySettingsError",
    "ReorderError",
    "Replayed",
    "Status",
    "TopicMissingError",
    "TopicSpec",
    "TopicsProbe",
    "TransactionError",
    "UnsafeDatabaseError",
    "UnsupportedDatabaseError",
    "bucket_of",
    "check_partitions",
    "dead_letter_topic",
    "ensure_topics",
    "initialise_group",
    "refused",
    "replay",
    "requeue",
    "settled_until",
    "status",
]
