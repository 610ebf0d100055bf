"""What a relay can be told. Times are seconds; the defaults fit one broker nearby."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal

from lethe_outbox.errors import RelaySettingsError
from lethe_outbox.message import BUCKETS
from lethe_outbox.ranges import wrong_number

_COMPRESSIONS: Final = (None, "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Settings of one relay.

    Attributes:
        hold_back_topics: topics of which a dead letter holds its key back until somebody deals with
            it; of other topics the key goes on.
        lanes: pipelines, each owning `256 / lanes` buckets; the unit in which relays share work.
        lease_seconds: how long a bucket stays owned without renewal.
        renew_seconds: how often leases are renewed.
        margin_seconds: how long before its end a lease counts as ended.
        publish_seconds: how long one batch may take; then it is sent by another producer.
        watch_backends: take over at once from a relay whose database session is gone, instead of
            after its lease; harmless but of no use behind a pooler in transaction mode.
        rows_per_bucket: most rows one fetch takes of a bucket; a quarter of it of one that was read
            far ahead of the others.
        fresh_ids: ids up to the last that are read as they come while there is no backlog, and not
            bucket by bucket.
        ids_per_fetch: most ids one fetch passes of a bucket, be their rows sent: what bounds its
            work behind a writer that was open for hours.
        chunk_bytes: payload and headers one fetch aims at most at, learnt from the rows seen.
        waiting_bytes: payload and headers that may wait to be published before nothing more is
            fetched; what waits for a partition that takes nothing does not count, but is bounded by
            its lane's `chunks_ahead`.
        large_payload_bytes: a payload beyond it, or headers, are not fetched but read when it is
            their turn.
        unacknowledged_rows: rows of a lane that may be on their way before it is read on.
        chunks_ahead: fetched chunks that wait per lane.
        batch_bytes: size of a Kafka batch.
        compression: of Kafka batches.
        largest_record_bytes: a row beyond it is refused here, because a broker drops the connection
            instead of answering.
        rows_per_acknowledgement: most rows one acknowledgement marks.
        listen: hear the hints of writers (`lethe_outbox.wake_up`) on one more connection; behind a
            pooler in transaction mode that is noticed and given up.
        poll_min_seconds: pause between polls while rows come.
        poll_max_seconds: pause between polls when nothing comes.
        pause_max_seconds: longest pause between attempts to reach a broker or database.
        unknown_topic_seconds: how long a topic may be unknown to a broker that answers, before its
            rows count as refused.
        sweep_seconds: how often rows below the low-water marks are looked for.
        sweep_rows: how many ids one sweep covers.
        sample_seconds: how often the gauges are taken.
        retention_seconds: how long sent rows stay at least; a month's partition goes when its
            newest row is that old.
        janitor_seconds: how often partitions are made and dropped, by one relay at a time; 0 leaves
            that to somebody else.
        janitor_lock_seconds: longest wait of the janitor for a lock on the table, below 1 (the
            server's `deadlock_timeout`); business transactions that come meanwhile wait behind it.
        months_ahead: monthly partitions made after the current month's.

    Raises:
        RelaySettingsError: a publish could outlive its lease, or a number makes no sense.
    """

    hold_back_topics: frozenset[str] = frozenset()
    lanes: int = 16
    lease_seconds: float = 15
    renew_seconds: float = 4
    margin_seconds: float = 1
    publish_seconds: float = 5
    watch_backends: bool = True
    rows_per_bucket: int = 125
    fresh_ids: int = 1000
    ids_per_fetch: int = 100_000
    chunk_bytes: int = 4 * 1024 * 1024
    waiting_bytes: int = 24 * 1024 * 1024
    large_payload_bytes: int = 8 * 1024
    unacknowledged_rows: int = 20_000
    chunks_ahead: int = 2
    batch_bytes: int = 256 * 1024
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = None
    largest_record_bytes: int = 90_000_000
    rows_per_acknowledgement: int = 1000
    listen: bool = True
    poll_min_seconds: float = 0.002
    poll_max_seconds: float = 0.25
    pause_max_seconds: float = 30
    unknown_topic_seconds: float = 10
    sweep_seconds: float = 30
    sweep_rows: int = 200_000
    sample_seconds: float = 10
    retention_seconds: float = 30 * 86_400
    janitor_seconds: float = 600
    janitor_lock_seconds: float = 0.2
    months_ahead: int = 2

    def __post_init__(self) -> None:
        wrong = wrong_number(self, may_be_zero={"margin_seconds", "janitor_seconds"})
        if wrong is not None:
            raise RelaySettingsError(wrong)
        if BUCKETS % self.lanes:
            raise RelaySettingsError(f"lanes must divide {BUCKETS}")
        spare = self.lease_seconds - self.renew_seconds - self.margin_seconds
        if self.publish_seconds > spare:
            raise RelaySettingsError(
                "a publish could outlive its lease: publish_seconds must be at most "
                "lease_seconds - renew_seconds - margin_seconds"
            )
        if self.janitor_lock_seconds >= 1:
            raise RelaySettingsError("janitor_lock_seconds must be below 1")
        if self.poll_max_seconds < self.poll_min_seconds:
            raise RelaySettingsError("poll_max_seconds must not be below poll_min_seconds")
        if self.compression not in _COMPRESSIONS:
            raise RelaySettingsError("compression must be gzip, snappy, lz4, zstd or None")
        # A single text would count as the set of its parts: "a" is in "orders.late".
        if not isinstance(self.hold_back_topics, AbstractSet):
            raise RelaySettingsError("hold_back_topics must be a set of topics")

    def buckets_of(self, lane: int) -> range:
        """Give the buckets of a lane: those that `lanes` divides with this remainder."""
        return range(lane, BUCKETS, self.lanes)
