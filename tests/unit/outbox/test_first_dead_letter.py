"""What is refused is counted from 0 on, or the first of a topic would be no increase."""

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox import ConsumerMetrics, ConsumerRunner, Inbox, RelayMetrics


async def handle(_connection: object, _records: object) -> None:
    """Do nothing."""


def test_a_consumer_shows_no_dead_letters_of_its_topics_before_the_first() -> None:
    registry = CollectorRegistry()
    engine = create_async_engine("postgresql+psycopg://nowhere")
    metrics = ConsumerMetrics(registry)
    ConsumerRunner(engine, "nowhere:9092", "orders", ["one", "two"], handle, Inbox(), metrics)
    for topic in ("one", "two"):
        labels = {"group": "orders", "topic": topic, "outcome": "dead_lettered"}
        assert registry.get_sample_value("outbox_consumer_records_total", labels) == 0


def test_a_relay_shows_nothing_refused_of_a_topic_it_publishes_to() -> None:
    registry = CollectorRegistry()
    RelayMetrics(registry).count_published("shop", "orders.v1", 3)
    labels = {"outbox": "shop", "topic": "orders.v1"}
    assert registry.get_sample_value("relay_published_total", labels) == 3
    assert registry.get_sample_value("relay_dead_lettered_total", labels) == 0
    assert registry.get_sample_value("relay_dlt_failed_total", labels) == 0
