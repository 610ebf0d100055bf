"""Traces go on through the outbox, if OpenTelemetry's API is installed (extra `otel`).

A row carries the W3C trace context of the span that appended it, in the headers `traceparent` and
`tracestate`; a message that brings those itself keeps them. The relay's `publish` spans and the
consumer's `process` spans link to it. Baggage is not carried: nobody meant it to be kept.
Without the API, or without a tracer provider, none of this costs more than a look.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

from lethe_outbox.record import Record

TraceHeaders = Sequence[tuple[str, bytes]]


class PublishedBatch(NamedTuple):
    """A batch that Kafka has acknowledged.

    Attributes:
        topic: where it went.
        partition: likewise.
        rows: of the outbox, as the driver gave them.
        headers_at: where in each row its packed headers are.
        seconds: how long it took.
    """

    topic: str
    partition: int
    rows: Sequence[Any]
    headers_at: int
    seconds: float


class Tracing(Protocol):
    """What `otel` does; nothing here knows OpenTelemetry."""

    def current_context(self) -> TraceHeaders:
        """Write the current span's context as headers."""
        ...

    def published(self, batch: PublishedBatch) -> None:
        """Tell of a batch that Kafka has acknowledged."""
        ...

    def processing(self, group: str, records: Sequence[Record]) -> AbstractContextManager[Any]:
        """Be the current span while records are handled."""
        ...


def _installed() -> Tracing | None:
    try:
        from lethe_outbox.otel import OpenTelemetry  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "opentelemetry":
            raise
        return None
    return OpenTelemetry()


_tracing = _installed()


def current_context() -> TraceHeaders:
    """Write the context of the span that is current now as headers; empty if there is none."""
    return () if _tracing is None else _tracing.current_context()


def published(
    topic: str, partition: int, rows: Sequence[Any], headers_at: int, seconds: float
) -> None:
    """Tell of a batch that Kafka has acknowledged; see `PublishedBatch`."""
    if _tracing is not None:
        _tracing.published(PublishedBatch(topic, partition, rows, headers_at, seconds))


def processing(group: str, records: Sequence[Record]) -> AbstractContextManager[Any]:
    """Return the span in which `records` are handled by `group`: their error is its error."""
    return nullcontext() if _tracing is None else _tracing.processing(group, records)
