"""What an application hands to its outbox, and how it stands in the row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from uuid import UUID

from aiokafka.partitioner import murmur2
from uuid_utils.compat import uuid7

from lethe_outbox.errors import MessageError

BUCKETS: Final = 256
"""Hash classes of keys. While a topic's partition count divides it, `bucket % partitions` is what
Kafka's default partitioner says of the key."""

EVENT_ID_HEADER: Final = "ce_id"
"""Every record carries its event id in this header (CloudEvents' name in Kafka's binary mode)."""

Headers = tuple[tuple[str, bytes], ...]

_SEPARATOR: Final = b"\0"
_EVENT_ID_NAME: Final = EVENT_ID_HEADER.encode()
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Message:
    """One event to be published: `payload` to `topic`, in order with everything of the same `key`.

    Raises:
        MessageError: a topic that Kafka does not allow, an empty key, a payload that is not bytes,
            an event id that is no UUID, or text or a header that cannot be kept (not text, not
            bytes, NUL, half a surrogate pair, empty name), or headers that are no pairs.
    """

    topic: str
    key: str
    payload: bytes
    headers: Headers = ()
    event_id: UUID = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        if not isinstance(self.topic, str) or not _is_topic(self.topic):
            raise MessageError(
                "a topic has 1 to 249 of the signs a-z, A-Z, 0-9, '.', '_' and '-', not dots alone"
            )
        if not self.key or not _is_text(self.key):
            raise MessageError("a message needs a key of text, without NUL and in whole characters")
        if not isinstance(self.payload, bytes):
            raise MessageError(
                f"a payload is bytes, this is {type(self.payload).__name__}; encode it first, "
                "as json.dumps(...).encode() does"
            )
        if self.headers != () and not _are_pairs(self.headers):
            raise MessageError("headers are a tuple of pairs, each of a name and a value")
        for name, value in self.headers:
            if not name or not _is_text(name) or not isinstance(value, bytes) or b"\0" in value:
                raise MessageError(
                    "a header is a name of text and a value of bytes, both without NUL"
                )
        if not isinstance(self.event_id, UUID):
            raise MessageError("an event id is a uuid.UUID")

    @property
    def bucket(self) -> int:
        """The hash class of the key."""
        return bucket_of(self.key)


def check_messages(messages: Sequence[object]) -> None:
    """Refuse what is no `Message`, e.g. a list of them.

    Raises:
        MessageError: one of `messages` is none.
    """
    for one in messages:
        if not isinstance(one, Message):
            raise MessageError(
                f"append takes Messages, each an argument of its own; this is {type(one).__name__}"
            )


@lru_cache(maxsize=1024)
def _is_topic(topic: str) -> bool:
    # As Kafka's own Topic.validate says.
    return bool(_TOPIC.fullmatch(topic)) and topic not in {".", ".."}


def _are_pairs(headers: object) -> bool:
    # What can be gone through once only, a generator say, would be empty when it is written.
    return isinstance(headers, tuple | list) and all(
        isinstance(pair, tuple | list) and len(pair) == 2  # noqa: PLR2004  # name and value
        for pair in headers
    )


def _is_text(value: object) -> bool:
    """Say whether PostgreSQL and Kafka can both keep `value` as it is."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=65_536)
def key_hash(key: str) -> int:
    """Hash a key as Kafka's clients do (murmur2, made positive)."""
    return int(murmur2(key.encode())) & 0x7FFFFFFF


def bucket_of(key: str) -> int:
    """Say which of the `BUCKETS` a key falls into."""
    return key_hash(key) % BUCKETS


def pack_headers(message: Message, defaults: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """Write a message's headers as one value: name NUL value NUL ...

    Its event id is added, and those of `defaults` that it does not have.
    """
    headers = message.headers
    given = [name for name, _ in headers]
    parts = [part for name, value in headers for part in (name.encode(), value)]
    if EVENT_ID_HEADER not in given:
        parts[:0] = (_EVENT_ID_NAME, str(message.event_id).encode())
    for name, value in defaults:
        if name not in given:
            parts += (name.encode(), value)
    return _SEPARATOR.join(parts)


def unpack_headers(packed: bytes) -> list[tuple[str, bytes]]:
    """Read what `pack_headers` wrote."""
    parts = packed.split(_SEPARATOR)
    return [(name.decode(), value) for name, value in zip(parts[::2], parts[1::2], strict=True)]
