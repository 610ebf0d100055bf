"""What intake counts, after the write it reports."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from lethe_contracts.states import RequestState

OUTCOMES: Final = ("accepted", "replayed", "joined", "refused", "failed")


class IntakeMetrics:
    """Intake's own metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "intake_requests",
            "Submissions by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self._open = Gauge(
            "intake_open_requests",
            "Requests that are not closed, by state.",
            ["state"],
            registry=registry,
        )
        self._watermark = Gauge(
            "intake_watermark_timestamp_seconds",
            "When this instance last wrote a round of control watermarks.",
            registry=registry,
        )
        self._unsettled = Gauge(
            "intake_unsettled_buckets",
            "Buckets without a control watermark because a dead letter of them is unresolved.",
            registry=registry,
        )
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        self.sampled({})

    def answered(self, outcome: str) -> None:
        """Count one submission, by one of `OUTCOMES`."""
        self._requests.labels(outcome).inc()

    def ticked(self, at: datetime, unsettled_buckets: int) -> None:
        """Show a round of watermarks."""
        self._watermark.set(at.timestamp())
        self._unsettled.set(unsettled_buckets)

    def sampled(self, open_requests: Mapping[RequestState, int]) -> None:
        """Show how many requests are open."""
        for state in RequestState:
            if not state.is_final:
                self._open.labels(state).set(open_requests.get(state, 0))
