"""The topics of the contract, as they are created."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from lethe_contracts.topics import (
    DLT_HEADROOM_BYTES,
    MAX_MESSAGE_BYTES,
    PARTITIONS,
    RETENTION_DAYS,
    TOPICS,
    dead_letter_topic,
)
from lethe_outbox import TopicSpec

AGREED: Final = {name: PARTITIONS for topic in TOPICS for name in (topic, dead_letter_topic(topic))}
"""How many partitions every topic must have."""

_REPLICAS_FOR_QUORUM: Final = 3


def specs(replication_factor: int) -> Iterator[TopicSpec]:
    """Describe every topic of the contract and its dead-letter topic.

    A record's time is that of the broker, so that no clock of a writer's decides how long it is
    kept, or whether it is taken: Kafka refuses what is an hour ahead of it.
    """
    # With three copies a record is acknowledged by two, and one broker may be lost.
    quorum = {"min.insync.replicas": "2"} if replication_factor >= _REPLICAS_FOR_QUORUM else {}
    common = {
        **quorum,
        "unclean.leader.election.enable": "false",
        "message.timestamp.type": "LogAppendTime",
    }
    retention = int(timedelta(days=RETENTION_DAYS).total_seconds() * 1000)
    for topic in TOPICS:
        yield TopicSpec(
            topic,
            PARTITIONS,
            {
                **common,
                "retention.ms": str(retention),
                "max.message.bytes": str(MAX_MESSAGE_BYTES),
            },
            replication_factor,
        )
        yield TopicSpec(
            dead_letter_topic(topic),
            PARTITIONS,
            {
                **common,
                "retention.ms": "-1",
                "max.message.bytes": str(MAX_MESSAGE_BYTES + DLT_HEADROOM_BYTES),
            },
            replication_factor,
        )
