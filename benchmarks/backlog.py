"""The relay's rate and memory, whatever waits and whatever was sent before.

The rate that is compared is from the first acknowledgement to the last: the time to the first is
the same for every backlog, weighs on the smallest alone, and is reported beside it.
"""

from functools import partial

from benchmarks.harness.drain import Backlog, drain
from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_least, at_most

SIZES = (10_000, 100_000, 1_000_000)
FULL_SIZES = (*SIZES, 5_000_000)
BEHIND = Backlog(100_000, sent_before=10_000_000)
_SAME = at_least(0.9)


def figure(options: Options) -> Figure:
    """Drain backlogs of growing size; those of the full run take minutes each."""
    sizes: tuple[int, ...] = FULL_SIZES if options.full else SIZES
    if options.quick:
        sizes = (1_000, 2_000)
    cases = [Case(_name(size), partial(_run, Backlog(size)), _repeats(size)) for size in sizes]
    base = _name(100_000) if 100_000 in sizes else _name(sizes[0])
    rows = [
        Row(
            f"drain {size:,} rows",
            _name(size),
            "steady_rows_per_s",
            "rows/s",
            None if _name(size) == base else base,
            goal=None if _name(size) == base else _SAME,
        )
        for size in sizes
    ]
    if options.full and not options.quick:
        behind = f"{BEHIND.rows:,} rows behind {BEHIND.sent_before:,} sent"
        cases.append(Case(behind, partial(_run, BEHIND), 1))
        rows.append(Row(f"drain {behind}", behind, "steady_rows_per_s", "rows/s", base, goal=_SAME))
    largest = _name(sizes[-1])
    work = f"resident while draining {sizes[-1]:,} rows"
    smallest = _name(sizes[0])
    rows += [
        Row(f"{sizes[0]:,} rows, the first included", smallest, "rows_per_s", "rows/s"),
        Row("from the commit to the first acknowledgement", smallest, "first_s", "s"),
        Row(f"{work}: peak", largest, "peak_mb", "MB", goal=at_most(150)),
        Row(f"{work}: last quarter by second", largest, "growth", "x", goal=at_most(1.1)),
    ]
    return Figure("backlog", tuple(cases), tuple(rows))


def _repeats(size: int) -> int | None:
    """Let what takes long and varies little be measured once."""
    return 1 if size >= 1_000_000 else None


def _name(size: int) -> str:
    return f"backlog of {size:,}"


def _run(backlog: Backlog, bench: Bench) -> Sample:
    return drain(bench, backlog)
