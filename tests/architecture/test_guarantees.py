"""Every promise in docs/guarantees.md names the test that holds it, and that test exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
HELD_BY = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> list[str]:
    page = PAGE.read_text().split("## What we promise", 1)[1].split("\n## ", 1)[0]
    return [block for block in re.split(r"\n(?=- \*\*)", page) if block.startswith("- **")]


def test_there_are_promises() -> None:
    assert len(promises()) >= 10


def test_every_promise_names_a_test_that_exists() -> None:
    unheld: list[str] = []
    for promise in promises():
        named = HELD_BY.findall(promise)
        if not named:
            unheld.append(promise.splitlines()[0])
        for file, test in named:
            path = ROOT / file
            if not path.is_file() or not re.search(rf"def {test}\(", path.read_text()):
                unheld.append(f"{file}::{test}")
    assert unheld == []
