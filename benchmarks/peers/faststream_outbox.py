"""faststream-outbox 0.19: its throughput at its defaults and at its best.

Its best (by measuring): large fetches and flushes, 16 workers (more are no faster; they give up
order per key), and `apply_types=False` on both brokers.
"""

from functools import partial

from benchmarks import relay
from benchmarks.harness.model import Case, Figure, Options, Row, at_least
from benchmarks.peers.python_peers import FASTSTREAM, Setting, drain

_LARGE = {"fetch_batch_size": 1000, "terminal_flush_batch_size": 100}
SETTINGS = {
    "faststream-outbox, defaults": Setting(1_000, {"subscriber": {}, "apply_types": True}),
    "faststream-outbox, one worker": Setting(3_000, {"subscriber": _LARGE, "apply_types": False}),
    "faststream-outbox, best": Setting(
        10_000, {"subscriber": {**_LARGE, "max_workers": 16}, "apply_types": False}
    ),
}
BEST = "faststream-outbox, best"


def figure(options: Options) -> Figure:
    """Drain."""
    drains = [Case(name, partial(drain, FASTSTREAM, one)) for name, one in SETTINGS.items()]
    rows = [Row(f"drain, {name}", name, "rows_per_s", "rows/s") for name in SETTINGS]
    rows.append(
        Row(
            f"drain {options.rows:,} rows, one relay, against faststream-outbox",
            *(relay.ONE, "rows_per_s", "rows/s", BEST),
            goal=at_least(30),
        )
    )
    return Figure("faststream_outbox", (relay.case(), *drains), tuple(rows))
