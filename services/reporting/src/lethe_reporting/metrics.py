"""What reporting shows: events counted after their commit, and figures sampled now and then."""

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from lethe_contracts.events import ALL
from lethe_contracts.states import RequestState
from lethe_reporting.storage.dead_letters import OpenLetters
from lethe_reporting.storage.requests import Figures


class ReportingMetrics:
    """Reporting's own metrics in `registry`.

    What is sampled is absent, NaN or of the year 1970 until the first sample: nobody may take a
    count for zero that was never taken.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._projected = Counter(
            "reporting_events_projected",
            "Events in the log and the read model, by event.",
            ["type"],
            registry=registry,
        )
        self._requests = Gauge(
            "reporting_requests", "Requests by state (sampled).", ["state"], registry=registry
        )
        self._slack = Gauge(
            "reporting_deadline_slack_seconds",
            "Until the earliest deadline of an open request; +Inf when none is open (sampled).",
            registry=registry,
        )
        self._open = Gauge(
            "reporting_dead_letters_open",
            "Dead letters that wait for a decision (sampled).",
            ["topic"],
            registry=registry,
        )
        self._oldest = Gauge(
            "reporting_dead_letter_oldest_seconds",
            "Age of the oldest open dead letter, 0 when there is none (sampled).",
            registry=registry,
        )
        self._sampled = Gauge(
            "reporting_sample_timestamp_seconds",
            "When the sampled figures were taken.",
            registry=registry,
        )
        self._slack.set(math.nan)
        self._oldest.set(math.nan)
        for event in ALL:
            self._projected.labels(event.name)

    def projected(self, names: Iterable[str]) -> None:
        """Count committed events by their names."""
        for name in names:
            self._projected.labels(name).inc()

    def sampled(self, figures: Figures, letters: OpenLetters, at: float) -> None:
        """Show what was found at `at`, in seconds since 1970."""
        for state in RequestState:
            self._requests.labels(state.value).set(figures.by_state.get(state, 0))
        slack = figures.slack_seconds
        self._slack.set(math.inf if slack is None else slack)
        for topic, count in letters.by_topic.items():
            self._open.labels(topic).set(count)
        self._oldest.set(letters.oldest_seconds)
        self._sampled.set(at)
