"""The group `lethe outbox`: how the outboxes stand, and bringing refused rows back."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.operations import OutboxStatus, RefusedRow, refused, requeue, status
from lethe_outbox.plain_sql import ALL_PARTS, schema_sql
from lethe_relay.settings import RelaySettings
from lethe_runtime.database import (
    SCHEMA,
    TRANSIENT,
    DatabaseAwayError,
    NotMigratedError,
    create_engine,
)
from lethe_runtime.settings import load

_T = TypeVar("_T")

app = typer.Typer(help="Looks at the outboxes and brings rows back.", no_args_is_help=True)


class Name(StrEnum):
    """The outboxes that the relay publishes."""

    INTAKE = "intake"
    PRODUCT = "product"


@app.command("status")
def show_status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show rows by status, the age of the oldest, who publishes, and what was refused."""
    settings = load(RelaySettings)
    found = {name: _ask(_url(settings, name), _look) for name in Name}
    if as_json:
        typer.echo(json.dumps({name: _document(*stand) for name, stand in found.items()}, indent=2))
        return
    console = Console()
    console.print(_overview({name: stand for name, (stand, _) in found.items()}))
    for name, (_, rows) in found.items():
        if rows:
            console.print(_refused_table(name, rows))


@app.command("requeue")
def bring_back(
    *,
    outbox: Annotated[Name, typer.Option(help="Whose rows.")],
    ids: Annotated[
        list[int] | None,
        typer.Option("--id", help="A refused row; repeat it for more. Default: all DLT_FAILED."),
    ] = None,
    accept_reorder: Annotated[
        bool, typer.Option(help="Also behind later events of the same key.")
    ] = False,
) -> None:
    """Make refused rows pending again, so that the relay publishes them."""
    settings = load(RelaySettings)

    async def again(engine: AsyncEngine) -> int:
        async with engine.begin() as connection:
            return await requeue(connection, ids, accept_reorder=accept_reorder, schema=SCHEMA)

    count = _ask(_url(settings, outbox), again)
    typer.echo(f"{count} rows of {outbox} are pending again")


class Part(StrEnum):
    """What `lethe outbox schema` prints alone."""

    OUTBOX = "outbox"
    INBOX = "inbox"
    DEAD_LETTER = "dead-letter"


@app.command("schema")
def print_schema(
    *,
    schema: Annotated[str, typer.Option(help="Where the tables go.")] = SCHEMA,
    only: Annotated[list[Part] | None, typer.Option(help="A part; repeat it for more.")] = None,
) -> None:
    """Print the SQL that creates the library's tables, for databases migrated without Alembic."""
    typer.echo(schema_sql(schema, only or ALL_PARTS), nl=False)


def _url(settings: RelaySettings, name: Name) -> SecretStr:
    if name is Name.INTAKE:
        return settings.intake_database_url
    return settings.product_database_url


def _ask(url: SecretStr, question: Callable[[AsyncEngine], Awaitable[_T]]) -> _T:
    async def asked() -> _T:
        engine = create_engine(url, application_name="lethe-outbox", pool_size=1)
        try:
            return await question(engine)
        except TRANSIENT as error:
            name = type(error).__name__
            raise DatabaseAwayError(f"the database does not answer ({name})") from None
        except ProgrammingError:
            raise NotMigratedError("the database has no outbox; lethe migrate lays it") from None
        finally:
            await engine.dispose()

    return asyncio.run(asked())


async def _look(engine: AsyncEngine) -> tuple[OutboxStatus, list[RefusedRow]]:
    return await status(engine, SCHEMA), await refused(engine, SCHEMA)


def _document(stand: OutboxStatus, rows: list[RefusedRow]) -> dict[str, Any]:
    oldest = stand.oldest_pending.isoformat() if stand.oldest_pending else None
    return {
        **asdict(stand),
        "oldest_pending": oldest,
        "oldest_pending_seconds": round(stand.oldest_pending_seconds, 3),
        "taken_at": stand.taken_at.isoformat(),
        "refused": [
            {
                **asdict(row),
                "event_id": str(row.event_id),
                "status": row.status.name,
                "died_at": row.died_at.isoformat(),
            }
            for row in rows
        ],
    }


def _overview(stands: dict[Name, OutboxStatus]) -> Table:
    table = Table("outbox", "pending", "oldest", "dead-lettered", "DLT_FAILED", "relays", "buckets")
    for name, stand in stands.items():
        table.add_row(
            name,
            str(stand.pending),
            f"{stand.oldest_pending_seconds:.1f} s" if stand.oldest_pending else "-",
            str(stand.dead_lettered),
            str(stand.dlt_failed),
            str(stand.relays),
            f"{stand.owned_buckets}/256",
        )
    return table


def _refused_table(name: Name, rows: list[RefusedRow]) -> Table:
    table = Table(
        "id", "event", "topic", "status", "reason", "key", "refused at", title=f"refused: {name}"
    )
    for row in rows:
        table.add_row(
            str(row.id),
            str(row.event_id),
            row.topic,
            row.status.name,
            row.reason,
            "held back" if row.held else "goes on",
            row.died_at.isoformat(timespec="seconds"),
        )
    return table
