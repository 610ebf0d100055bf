"""Spans by OpenTelemetry's API, named and labelled as its conventions for messaging say."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NoOpTracerProvider,
    ProxyTracerProvider,
    SpanKind,
    Tracer,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lethe_outbox.message import unpack_headers
from lethe_outbox.record import Record
from lethe_outbox.tracing import PublishedBatch

MOST_LINKS: Final = 128
"""OpenTelemetry's default limit: what a span links to beyond it would be thrown away."""

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_MARK: Final = b"traceparent"


class OpenTelemetry:
    """Reads, writes and begins spans of the process's tracer provider."""

    def current_context(self) -> tuple[tuple[str, bytes], ...]:
        """Write the current span's context as headers."""
        if trace.get_current_span().get_span_context() is INVALID_SPAN_CONTEXT:
            return ()
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return tuple((name, value.encode()) for name, value in carrier.items())

    def published(self, batch: PublishedBatch) -> None:
        """Record a `send` span that ends now, linked to the rows' spans."""
        tracer = _tracer()
        if tracer is None:
            return
        now = time.time_ns()
        carriers = (
            {name: value.decode("ascii", "replace") for name, value in unpack_headers(packed)}
            for packed in (row[batch.headers_at] for row in batch.rows)
            if _MARK in packed
        )
        span = tracer.start_span(
            f"send {batch.topic}",
            context=Context(),
            kind=SpanKind.PRODUCER,
            links=_links(carriers),
            start_time=now - int(batch.seconds * 1e9),
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": batch.topic,
                "messaging.destination.partition.id": str(batch.partition),
                "messaging.batch.message_count": len(batch.rows),
            },
        )
        span.end(now)

    @contextmanager
    def processing(self, group: str, records: Sequence[Record]) -> Iterator[None]:
        """Be in a `process` span: the child of a single record's span, linked to those of many."""
        tracer = _tracer()
        if tracer is None:
            yield
            return
        carriers = [_carrier(record) for record in records if _has_context(record)]
        parent = Context()
        if len(records) == 1 and carriers:
            parent = _PROPAGATOR.extract(carriers.pop(), context=parent)
        topics = sorted({record.topic for record in records})
        with tracer.start_as_current_span(
            f"process {topics[0]}" if len(topics) == 1 else "process",
            context=parent,
            kind=SpanKind.CONSUMER,
            links=_links(carriers),
            # An error's text may quote what it was given, which names people.
            record_exception=False,
            set_status_on_exception=False,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.consumer.group.name": group,
                "messaging.batch.message_count": len(records),
                **({"messaging.destination.name": topics[0]} if len(topics) == 1 else {}),
            },
        ) as span:
            try:
                yield
            except BaseException as error:
                # A batch that was cancelled was not processed either.
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(trace.StatusCode.ERROR)
                raise


def _tracer() -> Tracer | None:
    """Return the library's tracer, None while the process has no tracer provider."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        return None
    return provider.get_tracer("lethe_outbox")


def _links(carriers: Iterable[Mapping[str, str]]) -> list[Link]:
    """Link to each context once, `MOST_LINKS` at most."""
    found: dict[tuple[int, int], Link] = {}
    for carrier in carriers:
        context = trace.get_current_span(
            _PROPAGATOR.extract(carrier, context=Context())
        ).get_span_context()
        if context.is_valid:
            found.setdefault((context.trace_id, context.span_id), Link(context))
        if len(found) == MOST_LINKS:
            break
    return list(found.values())


def _has_context(record: Record) -> bool:
    return any(name == "traceparent" for name, _ in record.headers)


def _carrier(record: Record) -> dict[str, str]:
    return {name: value.decode("ascii", "replace") for name, value in record.headers if value}
