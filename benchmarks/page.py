"""`python -m benchmarks.page`: write the latest figures into docs/benchmarks.md."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.model import Goal
from benchmarks.harness.report import RESULTS, Spread, goal_in_words, in_words

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
START, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def main() -> None:
    """Replace what stands between the marks by the last full run, and the last beside the peers."""
    before, rest = PAGE.read_text().split(START)
    _, after = rest.split(END)
    runs = (
        (title, RESULTS / f"{name}.json")
        for title, name in (("The relay by itself", "latest"), ("Beside its peers", "peers"))
    )
    sections = [
        "\n".join(section(title, json.loads(path.read_text())))
        for title, path in runs
        if path.exists()
    ]
    PAGE.write_text(before + START + "\n" + "\n\n".join(sections) + "\n\n" + END + after)


def section(title: str, run: Mapping[str, Any]) -> Iterator[str]:
    """Make the lines of one run's section."""
    machine, options = run["machine"], run["options"]
    postgres = machine["postgres"]
    yield f"### {title}"
    yield ""
    yield (
        f"{machine['at']}, commit {machine['commit']}; {machine['cores']} cores, "
        f"{machine['memory_mb'] / 1000:.0f} GB, {machine['system']}, load before the start "
        f"{machine['load_average'][0]}; Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        + f"; PostgreSQL {postgres['server_version']} (fsync {postgres['fsync']}, "
        f"synchronous_commit {postgres['synchronous_commit']}, wal_level {postgres['wal_level']}, "
        f"shared_buffers {postgres['shared_buffers']}). {options['repeats']} repetitions"
        + (", the largest backlogs included." if options["full"] else ".")
    )
    yield ""
    yield "| figure | work | value | against | ratio | goal | |"
    yield "|---|---|---|---|---|---|---|"
    for line in run["lines"]:
        yield _row(line)
    yield ""
    for case, why in run["failures"].items():
        yield f"{case} could not be measured ({why.partition(':')[0]})."
    unclean = run["unclean"]
    yield (
        "Every topic that was read back held everything once and in order."
        if not unclean
        else "Not everything was there once and in order: " + "; ".join(unclean) + "."
    )


def _row(line: Mapping[str, Any]) -> str:
    goal = Goal(**line["goal"]) if line["goal"] else None
    ratio = in_words(Spread(**line["ratio"])) if line["ratio"] else ""
    cells = (
        line["figure"],
        line["work"],
        f"{in_words(Spread(**line['value']))} {line['unit']}",
        line["base"] or "",
        ratio,
        goal_in_words(goal, line["unit"]),
        {None: "", True: "reached", False: "**missed**"}[line["reached"]],
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
