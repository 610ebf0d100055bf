"""What `/metrics` of the eraser shows before anything happened."""

from prometheus_client import CollectorRegistry

from lethe_contracts.states import BlockReason
from lethe_eraser.metrics import EraserMetrics


def test_every_reason_is_there_from_the_start() -> None:
    """A series that begins with its first rows has no increase for an alert to see."""
    registry = CollectorRegistry()
    EraserMetrics(registry)
    for reason in BlockReason:
        assert registry.get_sample_value("eraser_rows_blocked_total", {"reason": reason}) == 0
