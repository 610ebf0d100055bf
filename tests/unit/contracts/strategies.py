"""Events of every type, made up by hypothesis."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from pydantic import AwareDatetime

from lethe_contracts.codec import Envelope
from lethe_contracts.events import (
    ALL,
    Blocked,
    Event,
    JobEvent,
    TypeTotals,
    Watermark,
)
from lethe_contracts.sources import WRITERS
from lethe_contracts.states import BlockReason

times = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2090, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
counts = st.integers(0, 10**6)
totals = st.dictionaries(
    texts,
    st.builds(TypeTotals, feature_rows=counts, task_rows=counts, objects_gone=counts),
    max_size=3,
)
reasons = st.dictionaries(st.sampled_from(BlockReason), counts, min_size=1, max_size=3)


def events_of(model: type[Event]) -> st.SearchStrategy[Event]:
    fields: dict[str, Any] = {}
    if issubclass(model, JobEvent):
        fields["totals"] = totals
        fields["request_ids"] = st.lists(st.uuids(), min_size=1, max_size=3).map(tuple)
    if model is Watermark:
        marks = st.dictionaries(st.integers(0, 255), times, min_size=1, max_size=3)
        fields["settled_until"] = marks
    if model is Blocked:
        fields["reasons"] = reasons
    for name, field in model.model_fields.items():
        if field.annotation is AwareDatetime:
            fields[name] = times
        elif field.annotation is str:
            fields[name] = texts
    return st.builds(model, **fields)


any_event = st.sampled_from(ALL).flatmap(events_of)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope[Event]:
    event = draw(any_event)
    return Envelope(
        id=draw(st.uuids()),
        source=WRITERS[event.topic],
        aggregate=draw(st.uuids()),
        sequence=draw(st.integers(1, 2**63 - 1)),
        time=draw(times),
        subject_ref=draw(st.from_regex(r"[1-9]\.[0-9a-f]{64}", fullmatch=True)),
        event=event,
        traceparent=draw(
            st.none() | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", fullmatch=True)
        ),
    )
