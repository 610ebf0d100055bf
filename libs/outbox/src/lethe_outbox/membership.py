"""Committing offsets as the member of a group that one is, and never as nobody."""

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import UnknownMemberIdError
from aiokafka.protocol.commit import OffsetCommitRequest


def commit_as_member(consumer: AIOKafkaConsumer) -> None:
    """Make `consumer`, which was started, fail a commit while its group does not know it.

    Told that it was put out, aiokafka forgets its generation, and whatever it commits or tries to
    commit then goes out as from a consumer without a group. A broker takes that if the group is
    empty just then, and offsets go back behind what others did meanwhile. Kafka's own client
    refuses (ConsumerCoordinator.sendOffsetCommitRequest); here `commit` raises CommitFailedError.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - no public door leads to it
    commit = coordinator._do_commit_offsets  # noqa: SLF001 - each try of a commit goes through it

    async def as_member(assignment: Any, offsets: Any) -> None:
        if coordinator.generation == OffsetCommitRequest.DEFAULT_GENERATION_ID:
            raise UnknownMemberIdError(coordinator.group_id)
        await commit(assignment, offsets)

    coordinator._do_commit_offsets = as_member  # noqa: SLF001 - as above
