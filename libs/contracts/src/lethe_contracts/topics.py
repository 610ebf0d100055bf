"""The Kafka topics of Lethe and what is fixed about them by contract.

Every record is keyed by `subject_ref`, so that one consumer handles one person and what is said of
a person keeps its order.
"""

from typing import Final

REQUESTS: Final = "erasure.requests.v1"
"""What intake decided. Written by the relay from intake's outbox; read by eraser and reporting."""

EVENTS: Final = "erasure.events.v1"
"""What the eraser decided. Written by the relay from its outbox; read by intake and reporting."""

TOPICS: Final = (REQUESTS, EVENTS)

PARTITIONS: Final = 16
"""Partitions of every topic. A divisor of the outbox's 256 buckets, so `bucket % PARTITIONS` is
Kafka's default partitioner. Services check the live count at start and refuse another."""

RETENTION_DAYS: Final = 28
"""Days a record stays on `TOPICS`; their dead-letter topics keep records without limit."""

MAX_MESSAGE_BYTES: Final = 1_048_576
"""`max.message.bytes` of `TOPICS`."""

DLT_HEADROOM_BYTES: Final = 65_536
"""How much larger a record may be on a dead-letter topic: room for the error headers."""


def dead_letter_topic(topic: str) -> str:
    """Name the dead-letter topic of `topic`."""
    return f"{topic}.DLT"
