import sys
from importlib.metadata import EntryPoint
from typing import Annotated, Any

import pytest
import typer

from lethe_runtime import cli
from lethe_runtime.errors import LetheRuntimeError
from lethe_runtime.settings import SettingsError

group = typer.Typer()


@group.callback()
def group_callback() -> None:
    """A group."""


@group.command()
def shout(word: str) -> None:
    """Shout."""
    typer.echo(word.upper())


@group.command()
def encode(word: Annotated[str, typer.Option()]) -> None:
    """Encode."""
    word.encode()


def plain(count: int = 1) -> None:
    """Count."""
    typer.echo(f"counted {count}")


def refuse() -> None:
    """Refuse."""
    raise LetheRuntimeError("it cannot be done")


def misconfigured() -> None:
    """Load."""
    raise SettingsError([("LETHE_X", "is missing"), ("LETHE_Y", "must be even")])


def explode() -> None:
    """Explode."""
    raise ZeroDivisionError


ran: list[str] = []


def migrate_first() -> str:
    ran.append("first")
    return "at 0001"


def migrate_second() -> None:
    ran.append("second")


NAMES = {
    cli.COMMANDS: {
        "group": "group",
        "plain": "plain",
        "refuse": "refuse",
        "misconfigured": "misconfigured",
        "explode": "explode",
    },
    cli.MIGRATIONS: {"20_second": "migrate_second", "10_first": "migrate_first"},
}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran.clear()
    here = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "lethe_installed_sample", here)

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [
            EntryPoint(point, f"lethe_installed_sample:{value}", group)
            for point, value in NAMES[group].items()
            if name in (None, point)
        ]

    monkeypatch.setattr(cli, "entry_points", entry_points)


def lethe(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["lethe", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_groups_and_plain_commands_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("group", "shout", "word", monkeypatch=monkeypatch) == 0
    assert lethe("plain", "--count", "3", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "WORD\ncounted 3\n"


def test_help_lists_everything_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("group", "plain", "migrate"))


def test_completion_is_offered_once_and_not_by_every_group(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, offered in ((["--help"], True), (["group", "--help"], False)):
        assert lethe(*arguments, monkeypatch=monkeypatch) == 0
        assert ("--install-completion" in capsys.readouterr().out) is offered


def test_a_misspelt_command_is_answered_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("groop", monkeypatch=monkeypatch) == 2
    assert "'group'" in capsys.readouterr().err


def test_settings_are_listed_and_end_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("misconfigured", monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.err == (
        "settings are not usable:\n  LETHE_X: is missing\n  LETHE_Y: must be even\n"
    )
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [["--word", "\udcff"], ["--word=\udcff"]])
def test_an_argument_that_is_no_text_is_wrong_usage(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("group", "encode", *arguments, monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err == "lethe: an argument is not UTF-8\n"


def test_a_refusal_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("refuse", monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().err == "lethe: it cannot be done\n"


def test_a_mistake_in_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lethe", "explode"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_migrations_run_in_the_order_of_their_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("migrate", monkeypatch=monkeypatch) == 0
    assert ran == ["first", "second"]
    assert capsys.readouterr().out == "first: at 0001\nsecond: up to date\n"


def test_one_member_migrates_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("migrate", "--only", "second", monkeypatch=monkeypatch) == 0
    assert ran == ["second"]
    assert lethe("migrate", "--only", "third", monkeypatch=monkeypatch) == 1
    assert "there are first, second" in capsys.readouterr().err


def test_the_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lethe("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("lethe ")
