"""What `lethe dlt` refuses before it reaches for any server."""

import getpass
from datetime import UTC, datetime, timedelta
from typing import cast
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from lethe_reporting.dlt_cli import app
from lethe_reporting.dlt_cli.printing import remedy
from lethe_reporting.dlt_cli.times import moment
from lethe_reporting.storage.dead_letters import DeadLetter


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
        ["list", "--since", "yesterday"],
        ["list", "--since", "999999w"],
        ["list", "--event-id", "17"],
        ["show"],
        ["replay", "--all", "1"],
        ["replay", "--all", "--rate", "0"],
        ["replay", "1", "--since", "2h"],
        ["discard", "1"],
        ["discard", "1", "--by", "Kim"],
        ["discard", "1", "--by", "Kim", "--reason", " "],
        ["discard", "--by", "Kim", "--reason", "junk"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_a_user_without_a_name_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number which no file names."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    done = CliRunner().invoke(app, ["replay", "1"])
    assert done.exit_code == 2
    assert "--by" in done.output


@pytest.mark.parametrize(
    ("refused_by", "outbox"), [("relay-intake", "intake"), ("relay-x; halt \x1b[2J", "NAME")]
)
def test_no_command_is_made_of_what_a_record_says(refused_by: str, outbox: str) -> None:
    letter = cast("DeadLetter", Mock(refused_by=refused_by, origin_offset=None))
    assert remedy(letter, 7) == f"lethe outbox requeue --outbox {outbox} --id 7"


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOON - timedelta(minutes=90)),
        ("2h", NOON - timedelta(hours=2)),
        ("1w", NOON - timedelta(weeks=1)),
        ("2026-11-20T12:00", NOON),
        ("2026-11-20T21:00+09:00", NOON),
        ("2026-11-20", NOON.replace(hour=0)),
    ],
)
def test_moments_are_read_as_people_write_them(text: str, expected: datetime) -> None:
    assert moment(text, NOON) == expected
