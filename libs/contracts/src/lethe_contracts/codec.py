"""Events as CloudEvents 1.0 in Kafka's binary mode.

Attributes travel in `ce_*` headers, the data as JSON in the value, W3C trace context in
`traceparent`. See the CloudEvents Kafka protocol binding 1.0.2, section 3.2.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError

from lethe_contracts.errors import (
    InvalidEventError,
    NotOursError,
    UnknownTypeError,
    UnknownVersionError,
)
from lethe_contracts.events import ALL, Event
from lethe_contracts.sources import WRITERS

E_co = TypeVar("E_co", bound=Event, covariant=True)

CONTENT_TYPE: Final = "application/json"
TRACEPARENT: Final = "traceparent"
TYPE_PREFIX: Final = "lethe.erasure."

_TYPE: Final = re.compile(r"lethe\.erasure\.(?P<name>[a-z_]+)\.v(?P<version>[1-9][0-9]{0,3})")
_TRACE: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SUBJECT_REF: Final = re.compile(r"[!-~]{1,200}")
_LARGEST_SEQUENCE: Final = 2**63 - 1
_REQUIRED: Final = frozenset({"ce_specversion", "ce_id", "ce_source", "ce_type"})
"""What makes a record a CloudEvent. The SDK would make up a missing id, a new one every time."""
_EVENTS: Final = {(event.name, event.version): event for event in ALL}
_NAMES: Final = frozenset(event.name for event in ALL)
_FORMAT: Final = JSONFormat()


@dataclass(frozen=True, slots=True)
class Envelope(Generic[E_co]):
    """An event with what is said about it: who, of what, as the how-manieth, when.

    Raises:
        InvalidEventError: `source` does not write this event, `sequence` is below 1 or above 63
            bits, `time` has no zone, or `subject_ref` is not 1 to 200 visible ASCII characters.
    """

    id: UUID
    """The event's own id (UUIDv7), the same in every repetition of the record."""
    source: str
    aggregate: UUID
    sequence: int
    """From 1 up; only grows per (source, aggregate)."""
    time: datetime
    subject_ref: str
    event: E_co
    traceparent: str | None = None
    """W3C trace context, version 00."""

    def __post_init__(self) -> None:
        if self.source != WRITERS[self.event.topic]:
            raise InvalidEventError(f"{self.event.name} is not written by this source")
        if not 1 <= self.sequence <= _LARGEST_SEQUENCE:
            raise InvalidEventError(f"{self.event.name}: a sequence counts from 1")
        if self.time.utcoffset() is None:
            raise InvalidEventError(f"{self.event.name}: the time has no zone")
        if not _SUBJECT_REF.fullmatch(self.subject_ref):
            raise InvalidEventError(f"{self.event.name}: there is no usable subject_ref")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record as an outbox takes it."""

    topic: str
    key: str
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


def type_of(event: type[Event]) -> str:
    """Name the CloudEvents type of an event."""
    return f"{TYPE_PREFIX}{event.name}.v{event.version}"


def encode(envelope: Envelope[Event]) -> Encoded:
    """Write an envelope as a record, keyed by its person."""
    message = to_binary(
        CloudEvent(
            {
                "id": str(envelope.id),
                "source": envelope.source,
                "type": type_of(type(envelope.event)),
                "specversion": "1.0",
                "time": envelope.time.astimezone(UTC),
                "subject": envelope.subject_ref,
                "datacontenttype": CONTENT_TYPE,
                "aggregate": str(envelope.aggregate),
                "sequence": str(envelope.sequence),
            },
            envelope.event.model_dump_json().encode(),
        ),
        _FORMAT,
    )
    headers = [*message.headers.items()]
    if envelope.traceparent is not None:
        headers.append((TRACEPARENT, envelope.traceparent.encode()))
    return Encoded(envelope.event.topic, envelope.subject_ref, tuple(headers), message.value)


def decode(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Envelope[Event]:
    """Read a record.

    Raises:
        NotOursError: no CloudEvent of ours.
        UnknownTypeError: a type this contract does not have.
        UnknownVersionError: a version of a known type that this program does not know.
        InvalidEventError: attributes or data against the schema.
    """
    present = _once(headers)
    attributes = _attributes(present)
    model = _model(attributes.get("type"))
    try:
        event = model.model_validate_json(value or b"")
    except ValidationError as error:
        raise InvalidEventError(f"{model.name}: {error.error_count()} fields are wrong") from None
    if b"\\u0000" in (value or b"") and _holds_nul(event.model_dump()):
        raise InvalidEventError(f"{model.name}: a text holds NUL, which no database takes")
    if "ce_time" not in present:
        raise InvalidEventError(f"{model.name}: the time is missing")
    try:
        return Envelope(
            id=UUID(_text(attributes, "id")),
            source=_text(attributes, "source"),
            aggregate=UUID(_text(attributes, "aggregate")),
            sequence=_sequence(_text(attributes, "sequence")),
            time=attributes["time"].astimezone(UTC),
            subject_ref=_text(attributes, "subject"),
            event=event,
            traceparent=_trace(present.get(TRACEPARENT)),
        )
    except (ValueError, OverflowError):
        raise InvalidEventError(f"{model.name}: an attribute is not what it should be") from None


def _once(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, bytes]:
    """Index the headers; an attribute that is there twice could be read in two ways."""
    found: dict[str, bytes] = {}
    for name, content in headers:
        if name in found and name.startswith("ce_"):
            raise NotOursError("an attribute of the record is there twice")
        if content is not None:
            found[name] = content
    return found


def _attributes(headers: dict[str, bytes]) -> dict[str, Any]:
    if not headers.keys() >= _REQUIRED:
        raise NotOursError("the record has no CloudEvents headers")
    ours = {
        name: content
        for name, content in headers.items()
        if name.startswith("ce_") or name == "content-type"
    }
    try:
        found = from_binary(KafkaMessage(ours, None, b""), _FORMAT, CloudEvent)
    except (BaseCloudEventException, ValueError, OverflowError):
        raise NotOursError("the record's headers are no CloudEvent") from None
    return found.get_attributes()


def _model(type_name: object) -> type[Event]:
    match = _TYPE.fullmatch(str(type_name))
    if match is None or match["name"] not in _NAMES:
        raise UnknownTypeError("the record is of no type of this contract")
    try:
        return _EVENTS[match["name"], int(match["version"])]
    except KeyError:
        raise UnknownVersionError(f"{match['name']} has no version {match['version']}") from None


def _text(attributes: dict[str, Any], name: str) -> str:
    found = attributes.get(name)
    if not isinstance(found, str):
        raise ValueError(name)  # noqa: TRY004 - caught above; a missing attribute is a wrong value
    return found


def _sequence(text: str) -> int:
    sequence = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= sequence <= _LARGEST_SEQUENCE:
        raise ValueError("sequence")
    return sequence


def _trace(header: bytes | None) -> str | None:
    """Read the trace context; a broken one costs the trace, never the event."""
    text = (header or b"").decode("ascii", errors="replace")
    return text if _TRACE.fullmatch(text) else None


def _holds_nul(data: object) -> bool:
    if isinstance(data, str):
        return "\0" in data
    if isinstance(data, Mapping):
        return any(_holds_nul(part) for pair in data.items() for part in pair)
    return isinstance(data, tuple) and any(_holds_nul(part) for part in data)
