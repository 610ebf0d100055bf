"""From samples to the file that machines read and the table that people read."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.model import Figure, Goal, Row, Sample

RESULTS = Path(__file__).parents[1] / "results"

Samples = Mapping[str, Sequence[Sample]]
"""By case, in the order of the repetitions."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some runs, with the smallest and the largest."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Take the values of all runs."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table with its values.

    A ratio is taken within each repetition, so that a slow moment of the machine weighs on both of
    its sides; its median is over the repetitions.
    """

    figure: str
    row: Row
    value: Spread
    ratio: Spread | None
    reached: bool | None


def lines(figures: Sequence[Figure], samples: Samples) -> list[Line]:
    """Make every row of the figures whose cases gave something."""
    return [
        _line(figure.name, row, samples)
        for figure in figures
        for row in figure.rows
        if row.case in samples and (row.against is None or row.against in samples)
    ]


def _line(figure: str, row: Row, samples: Samples) -> Line:
    values = [sample.values[row.metric] for sample in samples[row.case]]
    ratio = None
    if row.against is not None:
        base = [sample.values[row.base or row.metric] for sample in samples[row.against]]
        # Cases that are repeated less often than others stand beside the first repetitions.
        ratio = Spread.of([one / other for one, other in zip(values, base, strict=False)])
    value = Spread.of(values)
    return Line(figure, row, value, ratio, _reached(row.goal, value, ratio))


def _reached(goal: Goal | None, value: Spread, ratio: Spread | None) -> bool | None:
    if goal is None:
        return None
    judged = value if goal.on == "value" else ratio
    if judged is None:
        raise ValueError("a goal for a ratio needs something to compare with")
    return goal.reached(judged.median)


def unclean(samples: Samples) -> list[str]:
    """Name the cases whose topic did not hold everything once and in order."""
    return [
        f"{case}: {sample.verdict.lost} lost, {sample.verdict.duplicates} double, "
        f"{sample.verdict.inversions} out of order"
        for case, found in samples.items()
        for sample in found
        if sample.verdict is not None and not sample.verdict.clean
    ]


def document(
    made: Sequence[Line],
    samples: Samples,
    failures: Mapping[str, str],
    *,
    machine: Mapping[str, Any],
    options: object,
) -> dict[str, Any]:
    """Make the content of the file."""
    return {
        "machine": dict(machine),
        "options": options,
        "lines": [_as_dict(line) for line in made],
        "unclean": unclean(samples),
        "failures": dict(failures),
        "samples": {case: [asdict(sample) for sample in found] for case, found in samples.items()},
    }


def _as_dict(line: Line) -> dict[str, Any]:
    row = line.row
    return {
        "figure": line.figure,
        "work": row.work,
        "case": row.case,
        "metric": row.metric,
        "unit": row.unit,
        "value": asdict(line.value),
        "against": row.against,
        "base": base_in_words(row),
        "ratio": asdict(line.ratio) if line.ratio else None,
        "goal": asdict(row.goal) if row.goal else None,
        "reached": line.reached,
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def show(console: Console, made: Sequence[Line]) -> None:
    """Print the table."""
    table = Table(title="Median of this run (smallest to largest)")
    for heading in ("figure", "work", "value", "against", "ratio", "goal", ""):
        table.add_column(heading, overflow="fold")
    for place, line in enumerate(made):
        last = place + 1 == len(made) or made[place + 1].figure != line.figure
        table.add_row(
            line.figure,
            line.row.work,
            f"{in_words(line.value)} {line.row.unit}",
            base_in_words(line.row),
            "" if line.ratio is None else in_words(line.ratio),
            goal_in_words(line.row.goal, line.row.unit),
            {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[line.reached],
            end_section=last,
        )
    console.print(table)


def base_in_words(row: Row) -> str:
    """Name what is compared with: another case, or another value of this one."""
    return (row.base if row.against == row.case else row.against) or ""


def goal_in_words(goal: Goal | None, unit: str) -> str:
    """Say what is to be reached."""
    if goal is None:
        return "reported"
    suffix = " x" if goal.on == "ratio" else f" {unit}"
    aim = "" if goal.aim is None else f", aim {goal.aim:g}"
    return f"at {goal.is_at} {goal.limit:g}{suffix}{aim}"


def in_words(spread: Spread) -> str:
    """Write the median and, where they differ, the smallest and the largest."""
    if spread.min == spread.max:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.min)} to {_number(spread.max)})"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
