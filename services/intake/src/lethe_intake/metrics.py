"""What intake counts, after the write it reports."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from lethe_contracts.states import RequestState

Answer = Literal["accepted", "replayed", "joined", "refused", "failed"]
"""How a submission was answered."""


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
        for outcome in get_args(Answer):
            self._requests.labels(outcome)
        self.sampled({})

    def answered(self, outcome: Answer) -> None:
        """Count one submission."""
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
