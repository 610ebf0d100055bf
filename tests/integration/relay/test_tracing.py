"""A relay's spans, and the trace context that a row carries through the database."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message
from tests.support.factories import TopicFactory
from tests.support.outbox_world import append, drained, running
from tests.support.topics import read_raw


async def test_a_row_carries_its_trace_and_its_batch_is_linked_to_it(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = await topic()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with provider.get_tracer("tests").start_as_current_span("place order") as placing:
        await append(engine, *[Message(name, "k", b"%d" % n) for n in range(3)])
    async with running(database_url, kafka):
        await drained(engine)

    context = placing.get_span_context()
    expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    records = await read_raw(kafka, [name])
    assert {dict(one.headers)["traceparent"].decode() for one in records} == {expected}
    spans = [one for one in exporter.get_finished_spans() if one.name == f"send {name}"]
    assert sum(dict(one.attributes or {})["messaging.batch.message_count"] == 3 for one in spans)
    assert {link.context.span_id for one in spans for link in one.links} == {context.span_id}
    provider.shutdown()
