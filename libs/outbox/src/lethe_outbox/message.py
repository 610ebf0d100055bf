"""What an application hands to its outbox, and how it stands in the row."""

from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True)
class Message:
    """One event to be published: `payload` to `topic`, in order with everything of the same `key`.

    Raises:
        MessageError: an empty topic or key, or a header that cannot be kept (NUL, empty name).
    """

    topic: str
    key: str
    payload: bytes
    headers: Headers = ()
    event_id: UUID = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        if not self.topic or not self.key:
            raise MessageError("a message needs a topic and a key")
        if "\0" in self.topic or "\0" in self.key:
            raise MessageError("topic and key must not hold NUL")
        for name, value in self.headers:
            if not name or "\0" in name or b"\0" in value:
                raise MessageError(f"header {name!r}: a name is needed, and NUL is not possible")

    @property
    def bucket(self) -> int:
        """The hash class of the key."""
        return bucket_of(self.key)


@lru_cache(maxsize=65_536)
def key_hash(key: str) -> int:
    """Hash a key as Kafka's clients do (murmur2, made positive)."""
    return int(murmur2(key.encode())) & 0x7FFFFFFF


def bucket_of(key: str) -> int:
    """Say which of the `BUCKETS` a key falls into."""
    return key_hash(key) % BUCKETS


def pack_headers(message: Message) -> bytes:
    """Write a message's headers, its event id among them, as one value: name NUL value NUL ..."""
    headers: Iterable[tuple[str, bytes]] = message.headers
    if all(name != EVENT_ID_HEADER for name, _ in message.headers):
        headers = ((EVENT_ID_HEADER, str(message.event_id).encode()), *message.headers)
    return _SEPARATOR.join(part for name, value in headers for part in (name.encode(), value))


def unpack_headers(packed: bytes) -> list[tuple[str, bytes]]:
    """Read what `pack_headers` wrote."""
    parts = packed.split(_SEPARATOR)
    return [(name.decode(), value) for name, value in zip(parts[::2], parts[1::2], strict=True)]
