"""What the processes expose: every metric of every `metrics` module, with its labels."""

import importlib
import inspect

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics import MetricWrapperBase

MODULES = (
    "lethe_outbox.metrics",
    "lethe_intake.metrics",
    "lethe_eraser.metrics",
    "lethe_reporting.metrics",
)
TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds to whatever it scrapes."""

FOREIGN: dict[str, frozenset[str]] = {
    "up": TARGET,
    "ALERTS": TARGET | {"alertname", "alertstate", "severity"},
    # tests/integration/alerts scrapes a real Alertmanager for it
    "alertmanager_notifications_failed_total": TARGET | {"integration", "reason"},
}
"""What Prometheus and Alertmanager expose, as far as it is used."""


def series() -> dict[str, frozenset[str]]:
    """Name every series the services expose, as PromQL sees it, with its labels."""
    registry = CollectorRegistry()
    found: dict[str, frozenset[str]] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for kind in _metric_classes(module):
            kind(registry)
    for collector in {*registry._collector_to_names}:
        assert isinstance(collector, MetricWrapperBase), f"{collector!r} has no declared labels"
        labels = frozenset(collector._labelnames) | TARGET
        for sample in registry._collector_to_names[collector]:
            if sample.endswith("_created"):
                continue
            is_bucket = isinstance(collector, Histogram) and sample.endswith("_bucket")
            found[sample] = labels | {"le"} if is_bucket else labels
    return found


def _metric_classes(module: object) -> list[type]:
    """The classes that `module` defines itself and that take a registry and nothing else."""
    own = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == getattr(module, "__name__", "")
        and list(inspect.signature(kind).parameters) == ["registry"]
    ]
    assert own, f"{module!r} defines no metrics"
    return own
