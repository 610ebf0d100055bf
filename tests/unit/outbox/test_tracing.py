"""The trace of who appended goes on through the row to who handles it."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from lethe_outbox import Message, PoisonError, Record, otel, tracing
from lethe_outbox.message import pack_headers
from lethe_outbox.otel import MOST_LINKS
from lethe_outbox.testing import (
    MemoryBroker,
    MemoryConsumer,
    MemoryOutbox,
    MemoryRelay,
    MemoryTransaction,
)

TOPIC = "orders.v1"
OTHERS = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The process's provider can be set once only, and other tests need there to be none.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield provider.get_tracer("tests")
    provider.shutdown()


def traceparent(span: trace.Span) -> bytes:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()


def appended(*messages: Message) -> MemoryBroker:
    outbox, broker = MemoryOutbox(), MemoryBroker(TOPIC)
    with MemoryTransaction() as transaction:
        outbox.append(transaction, *messages)
    MemoryRelay(outbox, broker).publish()
    return broker


def order(key: str = "k", *headers: tuple[str, bytes]) -> Message:
    return Message(TOPIC, key, b"1", headers)


async def consumed(broker: MemoryBroker, error: Exception | None = None) -> list[trace.Span]:
    current = []

    async def handle(_connection: Any, _records: Sequence[Record]) -> None:
        current.append(trace.get_current_span())
        if error is not None:
            raise error

    await MemoryConsumer(broker, "shipping", [TOPIC], handle).consume()
    return current


def only(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return found


async def test_a_record_handled_alone_is_the_child_of_the_span_that_appended_it(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("place order") as placing:
        broker = appended(order())
    assert broker.records(TOPIC)[0].header("traceparent") == traceparent(placing)

    (handling,) = await consumed(broker)
    process = only(exporter, f"process {TOPIC}")
    assert process.context == handling.get_span_context()
    assert process.parent is not None
    assert process.parent.span_id == placing.get_span_context().span_id
    assert process.context.trace_id == placing.get_span_context().trace_id
    assert process.kind is SpanKind.CONSUMER
    assert dict(process.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.consumer.group.name": "shipping",
        "messaging.destination.name": TOPIC,
        "messaging.batch.message_count": 1,
    }


async def test_records_handled_together_are_linked_to(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("place order") as placing:
        broker = appended(order("a"), order("b"), order("c", ("traceparent", OTHERS.encode())))
    await consumed(broker)
    process = only(exporter, f"process {TOPIC}")
    assert process.parent is None
    linked = {link.context.span_id for link in process.links}
    assert linked == {placing.get_span_context().span_id, 0x2222222222222222}
    assert len(process.links) == 2


async def test_an_error_is_told_by_its_class_alone(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("place order"):
        broker = appended(order())
    await consumed(broker, PoisonError("customer-7 is not edible"))
    # Together at first, then alone.
    spans = [one for one in exporter.get_finished_spans() if one.name.startswith("process")]
    assert [one.status.status_code for one in spans] == [StatusCode.ERROR] * 2
    assert {(one.attributes or {})["error.type"] for one in spans} == {"PoisonError"}
    assert "customer-7" not in "".join(one.to_json() for one in spans)


def test_a_message_keeps_the_trace_it_brings(tracer: Tracer) -> None:
    with tracer.start_as_current_span("place order"):
        broker = appended(order("k", ("traceparent", OTHERS.encode())))
    assert broker.records(TOPIC)[0].header("traceparent") == OTHERS.encode()


def test_nothing_is_written_where_no_span_is_current(tracer: Tracer) -> None:
    del tracer
    assert [name for name, _ in appended(order()).records(TOPIC)[0].headers] == ["ce_id"]


async def test_without_a_tracer_provider_nothing_happens(exporter: InMemorySpanExporter) -> None:
    (handling,) = await consumed(appended(order("k", ("traceparent", OTHERS.encode()))))
    assert handling is trace.INVALID_SPAN
    tracing.published(TOPIC, 0, [(pack_headers(order()),)], 0, 0.1)
    assert exporter.get_finished_spans() == ()


def test_a_published_batch_is_a_span_linked_to_its_rows(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("place order") as placing:
        context = tracing.current_context()
    rows = [(n, pack_headers(order(), context)) for n in range(3)]
    rows.append((3, pack_headers(order("k", ("traceparent", b"not one")))))
    tracing.published(TOPIC, 5, rows, 1, 0.25)
    send = only(exporter, f"send {TOPIC}")
    assert send.kind is SpanKind.PRODUCER
    assert send.parent is None
    assert [link.context.span_id for link in send.links] == [placing.get_span_context().span_id]
    assert send.start_time is not None
    assert send.end_time is not None
    assert send.end_time - send.start_time == 250_000_000
    assert (send.attributes or {})["messaging.batch.message_count"] == 4
    assert (send.attributes or {})["messaging.destination.partition.id"] == "5"


def test_a_span_links_to_so_many_and_no_more(
    tracer: Tracer, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SpanLimits().max_links == MOST_LINKS, "what OpenTelemetry keeps"
    # It would throw away the first ones.
    monkeypatch.setattr(otel, "MOST_LINKS", 3)

    def header(number: int) -> tuple[str, bytes]:
        return "traceparent", f"00-{1:032x}-{number + 1:016x}-01".encode()

    rows = [(pack_headers(order("k", header(n))),) for n in range(5)]
    tracing.published(TOPIC, 0, rows, 0, 0.1)
    del tracer
    links = only(exporter, f"send {TOPIC}").links
    assert [link.context.span_id for link in links] == [1, 2, 3]


def test_an_installation_without_opentelemetry_is_told_from_a_broken_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        def importing(*_: Any, **__: Any) -> None:
            raise ModuleNotFoundError(name, name=name)

        return importing

    monkeypatch.delitem(__import__("sys").modules, "lethe_outbox.otel")
    with monkeypatch.context() as patched:
        patched.setattr("builtins.__import__", missing("opentelemetry.trace"))
        assert tracing._installed() is None
    with monkeypatch.context() as patched:
        patched.setattr("builtins.__import__", missing("typing_extensions"))
        with pytest.raises(ModuleNotFoundError):
            tracing._installed()
