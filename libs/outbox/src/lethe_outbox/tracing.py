"""Traces go on through the outbox, if OpenTelemetry's API is installed (extra `otel`).

A row carries the W3C trace context of the span that appended it, in the headers `traceparent` and
`tracestate`; a message that brings those itself keeps them. The relay's `publish` spans and the
consumer's `process` spans link to it. Baggage is not carried: nobody meant it to be kept.
Without the API, or without a tracer provider, none of this costs more than a look.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from lethe_outbox.record import Record

TraceHeaders = Sequence[tuple[str, bytes]]


class Tracing(Protocol):
    """What `otel` does; nothing here knows OpenTelemetry."""

    def current_context(self) -> TraceHeaders:
        """Write the current span's context as headers."""
        ...

    def published(
        self, topic: str, partition: int, packed_headers: Collection[bytes], seconds: float
    ) -> None:
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
    topic: str, partition: int, rows: Sequence[Sequence[Any]], headers_at: int, seconds: float
) -> None:
    """Tell of a batch that Kafka has acknowledged.

    Args:
        topic: where it went.
        partition: likewise.
        rows: of the batch.
        headers_at: where in each row its packed headers are.
        seconds: how long it took.
    """
    if _tracing is not None:
        _tracing.published(topic, partition, [row[headers_at] for row in rows], seconds)


def processing(group: str, records: Sequence[Record]) -> AbstractContextManager[Any]:
    """Return the span in which `records` are handled by `group`: their error is its error."""
    return nullcontext() if _tracing is None else _tracing.processing(group, records)
