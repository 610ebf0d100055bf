"""Two and four relays on the backlog of one."""

from benchmarks import relay
from benchmarks.harness.model import Figure, Options, Row, at_least, at_most

COUNTS = (2, 4)


def figure(options: Options) -> Figure:
    """Drain a backlog together."""
    rows = []
    for count in COUNTS:
        case = relay.case(count).name
        work = f"drain {options.rows:,} rows, {count} relays"
        rows += [
            Row(work, case, "rows_per_s", "rows/s", relay.ONE, goal=at_least(0.95)),
            Row("smallest share", case, "least_share", "of fair", goal=at_least(0.8, on="value")),
            Row("largest share", case, "largest_share", "of fair", goal=at_most(1.2)),
            Row("left pending", case, "pending", "rows", goal=at_most(0)),
        ]
    return Figure("relays", (relay.case(), *map(relay.case, COUNTS)), tuple(rows))
