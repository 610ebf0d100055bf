import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_contracts.codec import Envelope, decode, encode, type_of
from lethe_contracts.errors import (
    InvalidEventError,
    NotOursError,
    RecordError,
    UnknownTypeError,
    UnknownVersionError,
)
from lethe_contracts.events import ALL, Event, Held, Requested
from lethe_contracts.sources import ERASER, INTAKE
from tests.unit.contracts.strategies import envelopes

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HELD = Envelope(
    id=UUID("01920000-0000-7000-8000-000000000001"),
    source=INTAKE,
    aggregate=UUID("01920000-0000-7000-8000-000000000002"),
    sequence=1,
    time=NOON,
    subject_ref="1.ab",
    event=Held(hold_id=UUID("01920000-0000-7000-8000-000000000002")),
    traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
)


def headers(**changed: bytes | None) -> tuple[tuple[str, bytes], ...]:
    """The headers of `HELD`, some changed or (None) left out."""
    plain: Mapping[str, bytes | None] = {**dict(encode(HELD).headers), **changed}
    return tuple((name, value) for name, value in plain.items() if value is not None)


@given(envelopes())
def test_what_is_encoded_is_decoded_again(envelope: Envelope[Event]) -> None:
    record = encode(envelope)
    assert decode(record.headers, record.value) == envelope
    assert record.topic == envelope.event.topic
    assert record.key == envelope.subject_ref


def test_a_record_is_a_cloudevent_in_binary_mode() -> None:
    record = encode(HELD)
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": str(HELD.id).encode(),
        "ce_source": b"lethe/intake",
        "ce_type": b"lethe.erasure.held.v1",
        "ce_time": b"2026-11-20T12:00:00Z",
        "ce_subject": b"1.ab",
        "ce_aggregate": str(HELD.aggregate).encode(),
        "ce_sequence": b"1",
        "content-type": b"application/json",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01".encode(),
    }
    assert json.loads(record.value) == {"hold_id": str(HELD.event.hold_id)}


raw_headers = st.lists(
    st.tuples(
        st.sampled_from([*(name for name, _ in headers()), "CE_ID", "ce_", "ce_data", "x"])
        | st.text(max_size=8),
        st.binary(max_size=40) | st.sampled_from([value for _, value in headers()]),
    ),
    max_size=14,
)


@given(raw_headers, st.none() | st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_typed_error(
    given_headers: list[tuple[str, bytes]], value: bytes | None
) -> None:
    try:
        decode(given_headers, value)
    except RecordError as refused:
        reason = refused.reason
    else:
        return
    assert reason in {"not_ours", "unknown_type", "unknown_version", "invalid_event"}


@given(st.sampled_from([name for name, _ in headers()]), st.binary(max_size=60))
def test_any_bytes_in_one_header_are_an_event_or_a_typed_error(name: str, value: bytes) -> None:
    with contextlib.suppress(RecordError):
        decode(headers(**{name: value}), encode(HELD).value)


json_values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(ALL), st.binary(max_size=300) | json_values.map(json.dumps).map(str.encode))
def test_any_data_is_an_event_or_an_invalid_event(model: type[Event], value: bytes) -> None:
    with contextlib.suppress(InvalidEventError):
        decode(headers(ce_type=type_of(model).encode()), value)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"ce_id": None}, NotOursError),
        ({"ce_type": None}, NotOursError),
        ({"ce_source": None}, NotOursError),
        ({"ce_specversion": None}, NotOursError),
        ({"ce_specversion": b"0.3"}, NotOursError),
        ({"ce_source": b"\xff"}, NotOursError),
        ({"ce_type": b"com.example.paid"}, UnknownTypeError),
        ({"ce_type": b"lethe.erasure.unheard.v1"}, UnknownTypeError),
        ({"ce_type": b"lethe.erasure.held.v2"}, UnknownVersionError),
        ({"ce_id": b"17"}, InvalidEventError),
        ({"ce_source": b"lethe/eraser"}, InvalidEventError),
        ({"ce_sequence": None}, InvalidEventError),
        ({"ce_sequence": b"0"}, InvalidEventError),
        ({"ce_sequence": b"9223372036854775808"}, InvalidEventError),
        ({"ce_aggregate": b"x"}, InvalidEventError),
        ({"ce_time": None}, InvalidEventError),
        ({"ce_time": b"2026-11-20T12:00:00"}, NotOursError),
        ({"ce_time": b"0001-01-01T00:00:00+23:00"}, InvalidEventError),
        ({"ce_subject": None}, InvalidEventError),
        ({"ce_subject": b"a\x00b"}, InvalidEventError),
    ],
)
def test_each_broken_header_has_its_error(
    changed: dict[str, bytes | None], error: type[RecordError]
) -> None:
    with pytest.raises(error):
        decode(headers(**changed), encode(HELD).value)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"null", b"{}", b"[" * 100_000, b'{"hold_id": "x"}', b"\xff\xfe", b"not json"],
    ids=lambda value: repr(value)[:20],
)
def test_data_that_is_not_of_the_schema_is_an_invalid_event(value: bytes | None) -> None:
    with pytest.raises(InvalidEventError):
        decode(headers(), value)


def test_an_attribute_that_is_there_twice_is_not_ours() -> None:
    twice = (*headers(), ("ce_id", b"01920000-0000-7000-8000-00000000000f"))
    with pytest.raises(NotOursError):
        decode(twice, encode(HELD).value)


def test_headers_of_others_do_not_matter() -> None:
    more = (*headers(), ("x-seen-by", b"\xff\xfe"), ("x-seen-by", b"2"))
    assert decode(more, encode(HELD).value) == HELD


def test_a_broken_trace_costs_the_trace_and_not_the_event() -> None:
    for broken in (b"\xff", b"", b"ff-00"):
        assert decode(headers(traceparent=broken), encode(HELD).value).traceparent is None


def test_no_error_quotes_the_record() -> None:
    value = b'{"hold_id": "acct-000017", "acct-000017": 1}'
    with pytest.raises(InvalidEventError) as refused:
        decode(headers(), value)
    assert "acct" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_text_with_nul_is_invalid_because_no_database_takes_it() -> None:
    event = Requested(
        request_id=HELD.aggregate,
        attempt=1,
        team="a\0b",
        reason="r",
        regulation="pipa",
        requested_at=NOON,
        deadline=NOON,
        subject="1.x",
    )
    record = encode(Envelope(HELD.id, INTAKE, HELD.aggregate, 1, NOON, "1.ab", event))
    with pytest.raises(InvalidEventError):
        decode(record.headers, record.value)


@pytest.mark.parametrize(
    ("source", "sequence", "time", "subject_ref"),
    [
        (ERASER, 1, NOON, "1.ab"),
        (INTAKE, 0, NOON, "1.ab"),
        (INTAKE, 2**63, NOON, "1.ab"),
        (INTAKE, 1, NOON.replace(tzinfo=None), "1.ab"),
        (INTAKE, 1, NOON, ""),
        (INTAKE, 1, NOON, "한글"),
    ],
)
def test_an_envelope_that_could_not_be_read_cannot_be_made(
    source: str, sequence: int, time: datetime, subject_ref: str
) -> None:
    with pytest.raises(InvalidEventError):
        Envelope(HELD.id, source, HELD.aggregate, sequence, time, subject_ref, HELD.event)
