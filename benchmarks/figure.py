"""A measured figure, the table that people read and the file that machines read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one run: `ratio` compares `value` with `floor`, both in `unit`.

    `to_reach` says in words what the ratio (or the value, where there is no floor) should come to.
    """

    name: str
    work: str
    value: float
    unit: str
    floor: float | None
    ratio: float | None
    to_reach: str


def write(name: str, figures: Sequence[Figure]) -> Path:
    """Write the figures of benchmark `name` to `results/<name>.json` and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    return path


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Print the figures as one table."""
    table = Table(title="Measured in this run, on this machine")
    for heading in ("figure", "work", "value", "floor", "ratio", "to reach"):
        table.add_column(heading, overflow="fold")
    for figure in figures:
        table.add_row(
            figure.name,
            figure.work,
            f"{figure.value:,.2f} {figure.unit}",
            "" if figure.floor is None else f"{figure.floor:,.2f} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.to_reach,
        )
    console.print(table)
