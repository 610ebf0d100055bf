"""Committing offsets only as a member of the consumer group."""

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import UnknownMemberIdError
from aiokafka.protocol.commit import OffsetCommitRequest


def commit_as_member(consumer: AIOKafkaConsumer) -> None:
    """Make a started `consumer` fail its commits while it is no member of its group.

    Once evicted, aiokafka forgets its generation and commits like a consumer without a group. A
    broker accepts that while the group is empty, and offsets go back behind what others have
    committed. Kafka's own client refuses (ConsumerCoordinator.sendOffsetCommitRequest); here
    `commit` raises CommitFailedError.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - no public door leads to it
    commit = coordinator._do_commit_offsets  # noqa: SLF001 - each try of a commit goes through it

    async def as_member(assignment: Any, offsets: Any) -> None:
        if coordinator.generation == OffsetCommitRequest.DEFAULT_GENERATION_ID:
            raise UnknownMemberIdError(coordinator.group_id)
        await commit(assignment, offsets)

    coordinator._do_commit_offsets = as_member  # noqa: SLF001 - as above
