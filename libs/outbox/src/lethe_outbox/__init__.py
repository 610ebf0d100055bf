"""A transactional outbox for SQLAlchemy and Kafka: ordered per key, lossless, inbox included."""

from lethe_outbox.consumer.inbox import FastPath, Inbox
from lethe_outbox.consumer.inbox_keeper import InboxKeeper, KeeperSettings
from lethe_outbox.consumer.quarantine import DeadRecord
from lethe_outbox.consumer.runner import ConsumerRunner, ConsumerSettings
from lethe_outbox.dead_letters.choosing import Which
from lethe_outbox.dead_letters.deciding import Fate, ReplayOptions, discard, replay
from lethe_outbox.dead_letters.reader import DeadLetterReader
from lethe_outbox.errors import (
    ApprovalError,
    ArgumentError,
    AutocommitError,
    BrokerAwayError,
    ConnectionKindError,
    DatabaseReplacedError,
    DeadLetterTopicError,
    GroupAtWorkError,
    HandlerCancelledError,
    LeaseError,
    LetheOutboxError,
    MessageError,
    OffsetsLostError,
    PartitionCountError,
    PoisonError,
    RelaySettingsError,
    ReorderError,
    RetentionError,
    RowGoneError,
    TopicMissingError,
    TransactionError,
    UnsafeDatabaseError,
    UnsupportedDatabaseError,
)
from lethe_outbox.kafka.brokers import Brokers
from lethe_outbox.kafka.dead_letter_topic import dead_letter_topic
from lethe_outbox.kafka.groups import initialise_group
from lethe_outbox.kafka.topic_settings import TopicSettingsProbe
from lethe_outbox.kafka.topics import (
    TopicSpec,
    TopicsProbe,
    check_partitions,
    ensure_topics,
    with_dead_letters,
)
from lethe_outbox.message import BUCKETS, EVENT_ID_HEADER, Message, bucket_of
from lethe_outbox.metrics import ConsumerMetrics, RelayMetrics
from lethe_outbox.operations.listing import OutboxRow, WholeRow
from lethe_outbox.operations.measuring import Figures, figures
from lethe_outbox.operations.purging import Approval, purge, purgeable
from lethe_outbox.operations.requeuing import OutboxStatus, RefusedRow, refused, requeue, status
from lethe_outbox.operations.settled import settled_until
from lethe_outbox.outbox import Outbox
from lethe_outbox.partitions.upkeep import Upkeep, UpkeepRules
from lethe_outbox.plain_sql import schema_sql
from lethe_outbox.record import Record
from lethe_outbox.relay import Relay, RelaySettings
from lethe_outbox.schema import OutboxTables, Status
from lethe_outbox.wake_up import WakeUp

__all__ = [
    "BUCKETS",
    "EVENT_ID_HEADER",
    "Approval",
    "ApprovalError",
    "ArgumentError",
    "AutocommitError",
    "BrokerAwayError",
    "Brokers",
    "ConnectionKindError",
    "ConsumerMetrics",
    "ConsumerRunner",
    "ConsumerSettings",
    "DatabaseReplacedError",
    "DeadLetterReader",
    "DeadLetterTopicError",
    "DeadRecord",
    "FastPath",
    "Fate",
    "Figures",
    "GroupAtWorkError",
    "HandlerCancelledError",
    "Inbox",
    "InboxKeeper",
    "KeeperSettings",
    "LeaseError",
    "LetheOutboxError",
    "Message",
    "MessageError",
    "OffsetsLostError",
    "Outbox",
    "OutboxRow",
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
    "ReplayOptions",
    "RetentionError",
    "RowGoneError",
    "Status",
    "TopicMissingError",
    "TopicSettingsProbe",
    "TopicSpec",
    "TopicsProbe",
    "TransactionError",
    "UnsafeDatabaseError",
    "UnsupportedDatabaseError",
    "Upkeep",
    "UpkeepRules",
    "WakeUp",
    "Which",
    "WholeRow",
    "bucket_of",
    "check_partitions",
    "dead_letter_topic",
    "discard",
    "ensure_topics",
    "figures",
    "initialise_group",
    "purge",
    "purgeable",
    "refused",
    "replay",
    "requeue",
    "schema_sql",
    "settled_until",
    "status",
    "with_dead_letters",
]
