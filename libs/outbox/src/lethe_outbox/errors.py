"""Everything this library raises on purpose. No message holds a payload, header value or key."""


class LetheOutboxError(Exception):
    """The root of this library's errors."""


class MessageError(LetheOutboxError, ValueError):
    """A message cannot be kept in an outbox as it is."""


class TransactionError(LetheOutboxError):
    """A message was to be appended outside a transaction, or a handler ended the one it had."""


class AutocommitError(TransactionError):
    """A runner's engine is in AUTOCOMMIT: an event that fails would count as handled."""


class HandlerCancelledError(LetheOutboxError):
    """A handler ended as cancelled, by something of its own: nobody cancelled the runner."""


class UnsupportedDatabaseError(LetheOutboxError):
    """A connection is not to PostgreSQL, or uses a driver that is not supported."""


class ConnectionKindError(LetheOutboxError, TypeError):
    """An argument is no connection or session of the right kind."""


class PoisonError(LetheOutboxError):
    """Raised by a handler: this record can never be handled, whatever is tried again.

    Args:
        reason: a short stable code, kept with the dead letter (`error-reason`).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ArgumentError(LetheOutboxError, ValueError):
    """An argument or setting is outside its range."""


class BrokerAwayError(LetheOutboxError):
    """The brokers do not answer, or refuse what was asked; a migration gave up."""


class PartitionCountError(LetheOutboxError):
    """A topic has another number of partitions than agreed, or is missing."""


class TopicMissingError(PartitionCountError):
    """A topic is not there yet; a migration creates it."""


class DeadLetterTopicError(LetheOutboxError):
    """A dead-letter topic does not take the largest dead letter there may be, or may lose one."""


class RetentionError(LetheOutboxError):
    """A topic keeps records for longer than the inbox remembers that they were handled."""


class OffsetsLostError(LetheOutboxError):
    """A group's offsets are missing or out of the log's range; going on would skip records.

    The message says how the group is initialised; nothing is reset silently.
    """


class GroupAtWorkError(LetheOutboxError):
    """A group lacks an offset and has members; it can be given one only while it has none."""


class LeaseError(LetheOutboxError):
    """A bucket's lease is not held (any more); nothing of it may be published or acknowledged."""


class RelaySettingsError(ArgumentError):
    """A relay's settings contradict each other, e.g. a publish could outlive its lease."""


class DatabaseReplacedError(LetheOutboxError):
    """A relay's connections lead to another server than before, which may use ids again."""


class UnsafeDatabaseError(LetheOutboxError):
    """The outbox's tables lack what the guarantees of a relay rest on."""


class ApprovalError(LetheOutboxError, ValueError):
    """A purge without an approver, or without an age."""


class RowGoneError(LetheOutboxError):
    """A refused row is not in the outbox any more, so it cannot be brought back."""


class ReorderError(LetheOutboxError):
    """Bringing a row back would publish it behind later events of its key."""
