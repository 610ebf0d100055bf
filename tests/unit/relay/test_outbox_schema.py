"""`lethe outbox schema` and `python -m lethe_outbox schema` print the same; no server is asked."""

import pytest
from typer.testing import CliRunner

from lethe_outbox.__main__ import main
from lethe_outbox.plain_sql import ALL_PARTS, schema_sql
from lethe_relay.outbox_cli import Part
from lethe_runtime.cli import app

CHOICES: list[list[str]] = [
    [],
    ["--schema", 'Odd "name'],
    ["--only", "inbox"],
    ["--only", "outbox", "--only", "dead-letter"],
]


@pytest.mark.parametrize("options", CHOICES, ids=" ".join)
def test_both_commands_print_the_same(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = CliRunner().invoke(app, ["outbox", "schema", *options])
    assert said.exit_code == 0, said.output
    assert main(["schema", *options]) == 0
    assert capsys.readouterr().out == said.output
    assert said.output.startswith("BEGIN;\n")


def test_only_is_only() -> None:
    said = CliRunner().invoke(app, ["outbox", "schema", "--only", "inbox", "--schema", "shop"])
    assert said.output == schema_sql("shop", ["inbox"])
    assert "shop.inbox" in said.output
    assert "outbox" not in said.output


def test_the_command_knows_every_part() -> None:
    assert tuple(Part) == ALL_PARTS


@pytest.mark.parametrize("wrong", [[], ["schema", "--only", "everything"]], ids=["none", "part"])
def test_a_wrong_word_is_told_with_the_right_ones(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert "usage: python -m lethe_outbox" in capsys.readouterr().err
