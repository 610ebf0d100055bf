"""What every command of `lethe outbox` does: read settings, ask one database, tell a refusal."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_relay.settings import RelaySettings
from lethe_runtime.database import create_engine, disposing, in_words
from lethe_runtime.settings import load

_STATEMENT_SECONDS: Final = 600
"""A row found by its event id may have to be looked for everywhere."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_T = TypeVar("_T")


class Name(StrEnum):
    """The outboxes that the relay publishes."""

    INTAKE = "intake"
    PRODUCT = "product"


def age(text: str) -> timedelta:
    """Read `7d`, `12h`, `30m` or `45s`.

    Raises:
        typer.BadParameter: it is none of these.
    """
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None or not int(found[1]):
        raise typer.BadParameter("an age is a number and s, m, h or d: 45s, 30m, 12h, 7d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


Outbox = Annotated[Name | None, typer.Option(help="Whose rows. Default: those of every outbox.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
OlderThan = Annotated[
    timedelta | None,
    typer.Option(parser=age, metavar="AGE", help="Written longer ago: 45s, 30m, 12h, 7d."),
]
NewerThan = Annotated[
    timedelta | None,
    typer.Option(parser=age, metavar="AGE", help="Written since: 45s, 30m, 12h, 7d."),
]


def settings() -> RelaySettings:
    """Read the relay's settings."""
    return load(RelaySettings)


def asked_of(outbox: Name | None) -> tuple[Name, ...]:
    """Give the outboxes that a command is about."""
    return tuple(Name) if outbox is None else (outbox,)


def ask(name: Name, question: Callable[[AsyncEngine], Awaitable[_T]]) -> _T:
    """Put a question to the database of an outbox.

    Raises:
        DatabaseAwayError: it does not answer, or does not let the role do this.
        NotMigratedError: it has no outbox, or an older one.
    """
    url = _url(settings(), name)

    async def asked() -> _T:
        engine = create_engine(
            url,
            application_name="lethe-outbox",
            pool_size=1,
            statement_seconds=_STATEMENT_SECONDS,
        )
        async with disposing(engine):
            return await question(engine)

    database = f"the database of {name}"
    lacks = f"{database} has no outbox, or an older one; lethe migrate lays it"
    with in_words(database, lacks):
        return asyncio.run(asked())


def progress() -> Progress:
    """Show how far a long command is, to people and on standard error only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _url(found: RelaySettings, name: Name) -> SecretStr:
    if name is Name.INTAKE:
        return found.intake_database_url
    return found.product_database_url
