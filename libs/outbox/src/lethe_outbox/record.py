"""A record as consumers see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

from lethe_outbox.message import EVENT_ID_HEADER

_USUAL_LENGTH: Final = 36

ConsumedHeaders = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic, as it was consumed."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: ConsumedHeaders
    timestamp_ms: int
    event_id: UUID

    @classmethod
    def of(cls, consumed: Any) -> Self | None:
        """Read aiokafka's record; None when it carries no usable event id."""
        headers = tuple(consumed.headers)
        event_id = event_id_of(headers)
        if event_id is None:
            return None
        return cls(
            consumed.topic,
            consumed.partition,
            consumed.offset,
            consumed.key,
            consumed.value,
            headers,
            consumed.timestamp,
            event_id,
        )


def event_id_of(headers: Sequence[tuple[str, bytes | None]]) -> UUID | None:
    """Find the event id among headers, None when there is none or it is no UUID."""
    for name, value in headers:
        if name == EVENT_ID_HEADER and value is not None:
            return _uuid(value)
    return None


def _uuid(value: bytes) -> UUID | None:
    try:
        text = value.decode("ascii")
        # Each record pays for this; UUID's own reader takes twice as long for the usual form.
        if len(text) == _USUAL_LENGTH:
            return UUID(bytes=bytes.fromhex(text.replace("-", "")))
        return UUID(text)
    except ValueError:
        return None
