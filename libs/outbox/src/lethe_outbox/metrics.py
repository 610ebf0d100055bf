"""Every metric of the library. The registry is the user's; a metric counts what has been written.

The names and labels are a contract: alerts and dashboards are held against them.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary


class RelayMetrics:
    """What relays expose; one per process, each relay under its `outbox` label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        outbox, topic = ["outbox"], ["outbox", "topic"]
        self.rows = Gauge(
            "outbox_rows",
            "Rows by status, the sent ones as estimated by the database (sampled; NaN is unknown)",
            ["outbox", "status"],
            registry=registry,
        )
        self.oldest_pending_seconds = Gauge(
            "outbox_oldest_pending_seconds",
            "Age of the oldest row that is not published yet (sampled; NaN is unknown)",
            outbox,
            registry=registry,
        )
        self.sample_timestamp_seconds = Gauge(
            "outbox_sample_timestamp_seconds",
            "When the sampled figures were taken",
            outbox,
            registry=registry,
        )
        self.size_bytes = Gauge(
            "outbox_size_bytes",
            "All partitions of the outbox with their indexes (sampled; NaN is unknown)",
            outbox,
            registry=registry,
        )
        self.dead_tuples = Gauge(
            "outbox_dead_tuples",
            "Row versions that vacuum has not removed, estimated (sampled; NaN is unknown)",
            outbox,
            registry=registry,
        )
        self.default_rows = Gauge(
            "outbox_default_rows",
            "Rows younger than retention in the default partition, up to 10,000 (NaN is unknown)",
            outbox,
            registry=registry,
        )
        self.overdue_partitions = Gauge(
            "outbox_overdue_partitions",
            "Partitions that ended longer ago than retention (sampled; NaN is unknown)",
            outbox,
            registry=registry,
        )
        self.janitor_timestamp_seconds = Gauge(
            "outbox_janitor_timestamp_seconds",
            "When the janitor last completed a run (sampled; NaN is unknown)",
            outbox,
            registry=registry,
        )
        self.writer_open_seconds = Gauge(
            "outbox_writer_open_seconds",
            "Age of the oldest open transaction that writes the outbox (sampled; NaN is unknown)",
            outbox,
            registry=registry,
        )
        self.published = Counter(
            "relay_published", "Records acknowledged by Kafka", topic, registry=registry
        )
        self.acknowledged = Counter(
            "relay_acknowledged", "Rows marked as sent", outbox, registry=registry
        )
        self.dead_lettered = Counter(
            "relay_dead_lettered",
            "Rows that Kafka refused and their dead-letter topic took",
            topic,
            registry=registry,
        )
        self.dlt_failed = Counter(
            "relay_dlt_failed",
            "Rows that their dead-letter topic refused too",
            topic,
            registry=registry,
        )
        self.paused = Gauge(
            "relay_paused", "1 while the broker cannot be reached", outbox, registry=registry
        )
        self.buckets_owned = Gauge(
            "relay_buckets_owned", "Buckets this relay holds a lease of", outbox, registry=registry
        )
        self.hints = Counter(
            "relay_hints", "Wake-up hints heard from writers", outbox, registry=registry
        )
        self.seconds = Summary(
            "relay_step_seconds",
            "Time spent in the steps of publishing: look, fetch, encode and acknowledge per "
            "statement or batch (publish: relay_publish_seconds)",
            [*outbox, "step"],
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "relay_publish_seconds",
            "From handing a batch to Kafka to its acknowledgement",
            outbox,
            registry=registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )

    def count_published(self, outbox: str, topic: str, records: int) -> None:
        """Count records that Kafka acknowledged.

        The refused ones of that topic are shown from 0 on: the first would be the birth of its
        series otherwise, and no increase.
        """
        self.published.labels(outbox, topic).inc(records)
        self.dead_lettered.labels(outbox, topic)
        self.dlt_failed.labels(outbox, topic)


class ConsumerMetrics:
    """What consumer runners expose; one per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["group", "topic"]
        self.records = Counter(
            "outbox_consumer_records",
            "Records by what became of them: handled, duplicate or dead_lettered",
            [*labels, "outcome"],
            registry=registry,
        )
        self.retries = Counter(
            "outbox_consumer_retries",
            "Batches tried again in place after a transient error",
            labels,
            registry=registry,
        )
        self.blocked_partitions = Gauge(
            "outbox_consumer_blocked_partitions",
            "Partitions that stand still because their dead-letter topic cannot be written",
            labels,
            registry=registry,
        )
        self.lag = Gauge(
            "outbox_consumer_lag",
            "Records behind the end of the log, over this instance's partitions",
            labels,
            registry=registry,
        )
        self.fast_path_errors = Counter(
            "outbox_inbox_fast_path_errors",
            "Times Redis could not be asked or told; the inbox table decided alone",
            ["group"],
            registry=registry,
        )
        self.offsets_lost = Gauge(
            "outbox_consumer_offsets_lost",
            "1 after the group's offsets were found missing or out of range",
            ["group"],
            registry=registry,
        )
        self.inbox_ahead_seconds = Gauge(
            "outbox_inbox_ahead_seconds",
            "Until the partitions of the inbox that were made ahead end; 0 is now",
            ["group"],
            registry=registry,
        )
        self.inbox_overdue_partitions = Gauge(
            "outbox_inbox_overdue_partitions",
            "Partitions of the inbox that are past keeping and still there",
            ["group"],
            registry=registry,
        )
