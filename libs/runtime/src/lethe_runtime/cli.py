"""The one `lethe` command. Members add groups and migrations through entry points.

`lethe.commands`: the value is a Typer app (a group) or a function (a plain command); it is imported
only when its command is asked for. `lethe.migrations`: callables without arguments, run in order of
their names (what stands before the first `_` is for the order only); a string they return is shown.

A refusal of our own is one line on standard error and exit code 1; unusable settings are listed and
end with 2.
"""

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from lethe_runtime import logging
from lethe_runtime.errors import LetheRuntimeError, is_ours
from lethe_runtime.settings import SettingsError

COMMANDS: Final = "lethe.commands"
MIGRATIONS: Final = "lethe.migrations"
_COMPLETION: Final = frozenset({"install_completion", "show_completion"})


class UnknownMemberError(LetheRuntimeError):
    """No installed member has this name."""


class MigrationError(LetheRuntimeError):
    """A member could not be migrated; the message names it, and what to do."""


class _Groups(TyperGroup):
    """The built-in commands and everything installed, loaded when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        installed = (point.name for point in entry_points(group=COMMANDS))
        return sorted({*super().list_commands(ctx), *installed})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            for point in entry_points(group=COMMANDS, name=cmd_name):
                found = _command(point)
                self.add_command(found, cmd_name)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            for name in self.list_commands(ctx):
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _command(point: EntryPoint) -> Any:
    loaded = point.load()
    if not isinstance(loaded, typer.Typer):
        plain: Callable[..., object] = loaded
        loaded = typer.Typer(add_completion=False)
        loaded.command(point.name)(plain)
    command = typer.main.get_command(loaded)
    command.name = point.name
    # `lethe` itself completes, its groups too.
    command.params = [one for one in command.params if one.name not in _COMPLETION]
    return command


app = typer.Typer(
    name="lethe",
    cls=_Groups,
    help="Erases what a withdrawn user left behind, on time, completely, and provably.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:  # noqa: FBT001 - a Typer callback gets its value by position
    if asked:
        typer.echo(f"lethe {version('lethe-runtime')}")
        raise typer.Exit


@app.callback()
def lethe(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Erases what a withdrawn user left behind, on time, completely, and provably."""
    # What goes well is said by the command itself; a service tells of everything in its own log.
    logging.configure("lethe", "WARNING", stream=sys.stderr)


@app.command()
def migrate(
    only: Annotated[str | None, typer.Option(help="One member's name, e.g. intake.")] = None,
) -> None:
    """Bring topics and databases to what the installed members need; safe to repeat."""
    points = sorted(entry_points(group=MIGRATIONS), key=lambda point: point.name)
    names = [point.name.partition("_")[2] or point.name for point in points]
    if only is not None and only not in names:
        raise UnknownMemberError(f"there is no {only} to migrate; there are {', '.join(names)}")
    for name, point in zip(names, points, strict=True):
        if only in (None, name):
            typer.echo(f"{name}: {_migrated(name, point) or 'up to date'}")


def _migrated(name: str, point: EntryPoint) -> Any:
    """Run one member's migration; returns what it has to say."""
    try:
        return point.load()()
    except SettingsError:
        raise
    except Exception as error:
        if not is_ours(error):
            raise
        raise MigrationError(f"{name} is not migrated: {error}") from error


def main() -> None:
    """Run the command line; the console script `lethe`."""
    try:
        app()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except Exception as error:
        if isinstance(error, UnicodeEncodeError) and any(error.object in one for one in sys.argv):
            typer.echo("lethe: an argument is not UTF-8", err=True)
            sys.exit(2)
        if not is_ours(error):
            raise
        typer.echo(f"lethe: {error}", err=True)
        sys.exit(1)
