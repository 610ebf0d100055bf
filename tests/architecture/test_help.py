"""Every command's help can be read on a terminal of 80 columns."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lethe_runtime.cli import app


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group under `lethe`, as its words."""
    yield from _below(typer.main.get_command(app), ())


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from _below(command.get_command(context, name), (*words, name))


COMMANDS = sorted(commands())


def test_the_commands_are_found() -> None:
    assert {("dlt", "replay"), ("eraser", "quarantine", "release"), ("migrate",)} <= {*COMMANDS}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_whole_at_80_columns(words: tuple[str, ...]) -> None:
    said = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert said.exit_code == 0
    assert max(map(len, said.output.splitlines())) <= 80
    assert "…" not in said.output
