"""What `lethe dlt` refuses before it reaches for any server."""

import pytest
from typer.testing import CliRunner

from lethe_reporting.dlt_cli import app


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["replay", "1", "--all"],
        ["replay", "1", "--topic", "erasure.events.v1.DLT"],
        ["replay", "--all", "--topic", "erasure.events.v1"],
        ["replay", "0"],
        ["replay", "one"],
        ["list", "--topic", "nothing.DLT"],
        ["list", "--state", "opened"],
        ["list", "--limit", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
