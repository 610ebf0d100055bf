"""Rows that a broker refuses, and the topics that refuse them."""

from typing import Final

from lethe_outbox import Message, TopicSpec, ensure_topics

SMALL: Final = {"max.message.bytes": "4000"}
LARGE: Final = {"max.message.bytes": "100000"}


async def make_dlt(kafka: str, name: str) -> None:
    """Create the dead-letter topic of a topic."""
    await ensure_topics(kafka, [TopicSpec(f"{name}.DLT", 16, LARGE)])


def too_large(name: str, key: str) -> Message:
    """Make a message that a topic of `SMALL` records refuses, however it is compressed."""
    return Message(name, key, bytes(n * n % 251 for n in range(20_000)), (("ce_type", b"x"),))
