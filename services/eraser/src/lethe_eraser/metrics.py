"""The eraser's metrics; each is counted after the write it reports, and none has a person in it."""

import math
from collections import Counter as Occurrences
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import KINDS, FindingKind
from lethe_eraser.domain import Forecast, JobState, ObjectRef

Outcome = Literal["gone", "missing", "scheduled"]

_BATCH_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class EraserMetrics:
    """What `/metrics` of the eraser says of jobs and batches.

    Args:
        registry: where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Gauge("eraser_jobs", "Jobs by state.", ["state"], registry=registry)
        self._batches = Counter(
            "eraser_batches_total", "Batches masked and committed.", ["type"], registry=registry
        )
        self._rows = Counter(
            "eraser_rows_masked_total",
            "Rows masked and committed.",
            ["table_kind", "type"],
            registry=registry,
        )
        self._objects = Counter(
            "eraser_objects_total",
            "Objects gone, missing before anything was deleted, scheduled by tag, or kept.",
            ["bucket", "outcome"],
            registry=registry,
        )
        self._blocked = Counter(
            "eraser_rows_blocked_total",
            "Rows found blocked, once per round that finds them.",
            ["reason"],
            registry=registry,
        )
        # A series that begins with its first rows has no increase, and nobody would be paged.
        for reason in BlockReason:
            self._blocked.labels(reason)
        self._waited = Counter(
            "eraser_row_budget_wait_seconds_total",
            "Seconds that batches and chunks of client rows waited for the budget of rows.",
            registry=registry,
        )
        self._s3_errors = Counter(
            "eraser_s3_errors_total", "Errors of S3 by its code.", ["code"], registry=registry
        )
        self._uncovered = Gauge(
            "eraser_catalog_uncovered",
            "Tables, columns, shapes and references that nobody claims, at the last check.",
            ["kind"],
            registry=registry,
        )
        self._refused = Gauge(
            "eraser_catalog_refused",
            "1 while the catalog does not fit the database and nothing is erased.",
            registry=registry,
        )
        self._cdn_errors = Counter(
            "eraser_cdn_errors_total", "Errors of the CDN by its code.", ["code"], registry=registry
        )
        self._circuits = Gauge(
            "eraser_circuit_open",
            "1 while a dependency failed too often in a row and nothing is sent to it.",
            ["dependency"],
            registry=registry,
        )
        self._throttled = Gauge(
            "eraser_s3_throttled_prefixes",
            "Prefixes that are deleted slower than the budget because S3 asked for it.",
            ["bucket"],
            registry=registry,
        )
        self._invalidations = Gauge(
            "eraser_cdn_invalidations_unfinished",
            "Invalidations that were planned and that the CDN has not finished.",
            registry=registry,
        )
        self._invalidation_age = Gauge(
            "eraser_cdn_invalidation_age_seconds",
            "Seconds since the oldest unfinished invalidation was planned; 0 without one.",
            registry=registry,
        )
        self._window = Gauge(
            "eraser_window_open", "1 while erasing is allowed now.", registry=registry
        )
        self._stale = Gauge(
            "eraser_control_stale_jobs",
            "Jobs that could run, but a hold may be stuck on its way to them.",
            registry=registry,
        )
        self._quarantined = Gauge(
            "eraser_quarantined_records",
            "Records of intake that could not be handled and stop their bucket until released.",
            registry=registry,
        )
        self._windows_needed = Gauge(
            "eraser_windows_needed",
            "Erasure windows until the last open job of this instance is done, at the rate measured"
            " lately; NaN if that cannot be known (sampled).",
            registry=registry,
        )
        self._slack = Gauge(
            "eraser_deadline_slack_seconds",
            "From the forecast finish of the tightest open job to its deadline; +Inf without one,"
            " NaN if that cannot be known (sampled).",
            registry=registry,
        )
        self._seconds = Histogram(
            "eraser_batch_seconds",
            "Seconds from collecting a batch to its commit.",
            buckets=_BATCH_SECONDS,
            registry=registry,
        )
        self.forecast(None)

    def uncovered(self, by_kind: Mapping[FindingKind, int]) -> None:
        """Show how much of the product the last check found that nobody claims."""
        for kind in KINDS:
            self._uncovered.labels(kind).set(by_kind.get(kind, 0))

    def catalog_refused(self, *, refused: bool) -> None:
        """Show whether the last check refused the catalog, so that nothing is erased."""
        self._refused.set(int(refused))

    def jobs(self, by_state: Mapping[JobState, int]) -> None:
        """Show how many jobs there are in each state."""
        for state in JobState:
            self._jobs.labels(state).set(by_state.get(state, 0))

    def window(self, *, is_open: bool) -> None:
        """Show whether erasing is allowed now."""
        self._window.set(int(is_open))

    def control(self, *, stale_jobs: int, quarantined: int) -> None:
        """Show what waits for fresh control."""
        self._stale.set(stale_jobs)
        self._quarantined.set(quarantined)

    def forecast(self, found: Forecast | None) -> None:
        """Show when the open work will be done; None: nobody knows."""
        self._windows_needed.set(math.nan if found is None else found.windows)
        self._slack.set(math.nan if found is None else found.slack_seconds)

    def batch(self, request_type: str, seconds: float) -> None:
        """Count a committed batch."""
        self._batches.labels(request_type).inc()
        self._seconds.observe(seconds)

    def rows(self, table_kind: str, request_type: str, count: int) -> None:
        """Count masked rows."""
        if count:
            self._rows.labels(table_kind, request_type).inc(count)

    def waited(self, seconds: float) -> None:
        """Count how long a batch or a chunk waited for the budget of rows."""
        self._waited.inc(seconds)

    def objects(self, outcome: Outcome, refs: Iterable[ObjectRef]) -> None:
        """Count what became of objects."""
        for bucket, count in Occurrences(ref.bucket for ref in refs).items():
            self._objects.labels(bucket, outcome).inc(count)

    def kept(self, count: int) -> None:
        """Count objects that rows named and that stay; which bucket is not told by the finder."""
        if count:
            self._objects.labels("", "kept").inc(count)

    def blocked(self, reasons: Iterable[BlockReason]) -> None:
        """Count blocked rows."""
        for reason in reasons:
            self._blocked.labels(reason).inc()

    def cdn_error(self, code: str) -> None:
        """Count an error of the CDN."""
        self._cdn_errors.labels(code).inc()

    def circuit(self, dependency: str, is_open: bool) -> None:  # noqa: FBT001  # a callback
        """Show whether the circuit of a dependency is open and nothing is sent."""
        self._circuits.labels(dependency).set(int(is_open))

    def throttled(self, bucket: str, prefixes: Callable[[], int]) -> None:
        """Show how many prefixes of a bucket S3 slowed down; their names may name people."""
        self._throttled.labels(bucket).set_function(prefixes)

    def invalidations(self, unfinished: int, oldest_seconds: float) -> None:
        """Show what the CDN has not finished, and for how long."""
        self._invalidations.set(unfinished)
        self._invalidation_age.set(oldest_seconds)

    def s3_error(self, code: str) -> None:
        """Count an error of S3, of a request or of one key in it."""
        self._s3_errors.labels(code).inc()
