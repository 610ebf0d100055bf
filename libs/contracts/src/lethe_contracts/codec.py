"""Events as CloudEvents 1.0 in Kafka's binary mode.

Attributes travel in `ce_*` headers, the data as JSON in the value, W3C trace context in
`traceparent`. See the CloudEvents Kafka protocol binding 1.0.2, section 3.2.
"""

import re
from collections.abc import Iterable
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

E_co = TypeVar("E_co", bound=Event, covariant=True)

CONTENT_TYPE: Final = "application/json"
TRACEPARENT: Final = "traceparent"
TYPE_PREFIX: Final = "lethe.erasure."

_TYPE: Final = re.compile(r"lethe\.erasure\.(?P<name>[a-z_]+)\.v(?P<version>[1-9][0-9]{0,3})")
_LARGEST_SEQUENCE: Final = 2**63 - 1
_EVENTS: Final = {(event.name, event.version): event for event in ALL}
_NAMES: Final = frozenset(event.name for event in ALL)
_FORMAT: Final = JSONFormat()


@dataclass(frozen=True, slots=True)
class Envelope(Generic[E_co]):
    """An event with what is said about it: who, of what, as the how-manieth, when."""

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
    present = {name: content for name, content in headers if content is not None}
    attributes = _attributes(present)
    model = _model(attributes.get("type"))
    try:
        event = model.model_validate_json(value or b"")
    except ValidationError as error:
        raise InvalidEventError(f"{model.name}: {error.error_count()} fields are wrong") from None
    try:
        trace = present.get(TRACEPARENT)
        return Envelope(
            id=UUID(_text(attributes, "id")),
            source=_text(attributes, "source"),
            aggregate=UUID(_text(attributes, "aggregate")),
            sequence=_sequence(_text(attributes, "sequence")),
            time=attributes["time"],
            subject_ref=_text(attributes, "subject"),
            event=event,
            traceparent=None if trace is None else trace.decode("ascii"),
        )
    except (ValueError, UnicodeDecodeError):
        raise InvalidEventError(f"{model.name}: an attribute is not what it should be") from None


def _attributes(headers: dict[str, bytes]) -> dict[str, Any]:
    if "ce_specversion" not in headers or "ce_type" not in headers:
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
