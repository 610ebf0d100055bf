"""The group `lethe outbox`: how the outboxes stand, single rows, and what becomes of refused ones.

It works on the databases of the relay's settings, whether a relay runs or not. No list shows a key
or a payload. Exit codes: 0 done, or shown what would be done; 1 refused, or a database does not
answer, or there is no such row; 2 wrong usage or settings.
"""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import (
    Approval,
    OutboxRow,
    WholeRow,
    figures,
    purge,
    purgeable,
    refused,
    requeue,
    status,
)
from lethe_outbox.errors import ReorderError, RowGoneError
from lethe_outbox.operations.listing import UNSENT, Wanted, row, rows
from lethe_outbox.operations.requeuing import count_failed, failed_pages, not_to_requeue
from lethe_outbox.plain_sql import ALL_PARTS, schema_sql
from lethe_outbox.schema import Status
from lethe_relay.outbox_cli.asking import (
    AsJson,
    Name,
    NewerThan,
    OlderThan,
    Outbox,
    age,
    ask,
    asked_of,
    progress,
    settings,
)
from lethe_relay.outbox_cli.requeued import Requeued, counted
from lethe_relay.outbox_cli.shown import (
    Stand,
    overview,
    purge_document,
    refused_table,
    row_document,
    rows_table,
    status_document,
    whole_document,
    whole_table,
)
from lethe_runtime.database import SCHEMA, DatabaseAwayError, NotMigratedError
from lethe_runtime.errors import LetheRuntimeError

_AT_ONCE: Final = 500
_LARGEST_ID: Final = 2**63 - 1

app = typer.Typer(help="Looks at the outboxes and brings rows back.", no_args_is_help=True)


class OneStatus(StrEnum):
    """Where a row stands, as `list` takes it."""

    PENDING = "pending"
    SENT = "sent"
    DEAD_LETTERED = "dead_lettered"
    DLT_FAILED = "dlt_failed"


class Part(StrEnum):
    """What `lethe outbox schema` prints alone."""

    OUTBOX = "outbox"
    INBOX = "inbox"
    DEAD_LETTER = "dead-letter"


@app.command("status")
def show_status(*, as_json: AsJson = False) -> None:
    """Show rows by status, sizes, who publishes and writes, and what was refused.

    An outbox that cannot be asked hides no other one: what is known is shown, and it ends with 1.
    """
    seconds = settings().sent_retention_days * 86_400

    async def look(engine: AsyncEngine) -> Stand:
        size = await figures(engine, SCHEMA, retention_seconds=seconds)
        return await status(engine, SCHEMA), size, await refused(engine, SCHEMA)

    found: dict[Name, Stand] = {}
    unasked: list[LetheRuntimeError] = []
    for name in Name:
        try:
            found[name] = ask(name, look)
        except (DatabaseAwayError, NotMigratedError) as error:
            unasked.append(error)
    if as_json:
        _print({name: status_document(*stand) for name, stand in found.items()})
    elif found:
        console = Console()
        console.print(overview(found))
        for name, (_, _, dead) in found.items():
            if dead:
                console.print(refused_table(name, dead, console.width))
    for refusal in unasked:
        typer.echo(f"lethe: {refusal}", err=True)
    if unasked:
        raise typer.Exit(1)


@app.command("list")
def list_rows(
    *,
    outbox: Outbox = None,
    statuses: Annotated[
        list[OneStatus] | None,
        typer.Option("--status", help="Repeat it for more. Default: all that are not sent."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Only for this topic.")] = None,
    key: Annotated[str | None, typer.Option(help="Only of this key.")] = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List rows without what they carry: the oldest, and then of sent ones the newest."""
    wanted = Wanted(
        statuses=[Status[one.name] for one in statuses] if statuses else UNSENT,
        topic=topic,
        key=key,
        older_than=older_than,
        newer_than=newer_than,
        most=limit + 1,
    )
    found = {
        name: ask(name, lambda engine: rows(engine, wanted, SCHEMA)) for name in asked_of(outbox)
    }
    more = [name for name, some in found.items() if len(some) > limit]
    found = {name: _without_one_more(some, limit) for name, some in found.items()}
    if as_json:
        _print([row_document(name, each) for name, some in found.items() for each in some])
    elif any(found.values()):
        console = Console()
        for name in filter(found.get, found):
            console.print(rows_table(name, found[name], console.width))
    else:
        typer.echo("there are none", err=True)
    if more:
        typer.echo(f"there are more of {' and '.join(more)}; --limit shows them", err=True)


@app.command("show")
def show_row(
    identity: Annotated[str, typer.Argument(metavar="ID|EVENT_ID")],
    *,
    outbox: Outbox = None,
    payload: Annotated[bool, typer.Option("--payload", help="Its payload too, in clear.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one row with its key and headers; by its event id it may take a while."""
    wanted = _identity(identity)
    found: dict[Name, WholeRow] = {}
    with progress() as shown:
        shown.add_task("looking", total=None)
        for name in asked_of(outbox):
            one = ask(name, lambda engine: row(engine, wanted, SCHEMA, payload=payload))
            if one is not None:
                found[name] = one
    if not found:
        where = f"{outbox} has" if outbox else "the outboxes have"
        typer.echo(f"lethe: {where} no such row (any more)", err=True)
        raise typer.Exit(1)
    if len(found) > 1:
        raise typer.BadParameter(f"{' and '.join(found)} have such a row each; name one (--outbox)")
    for name, one in found.items():
        if as_json:
            _print(whole_document(name, one))
        else:
            Console().print(whole_table(name, one))


@app.command("requeue")
def bring_back(
    *,
    outbox: Outbox = None,
    ids: Annotated[
        list[int] | None,
        typer.Option(
            "--id",
            min=1,
            max=_LARGEST_ID,
            help="A refused row; repeat it for more. Default: all DLT_FAILED.",
        ),
    ] = None,
    accept_reorder: Annotated[
        bool,
        typer.Option("--accept-reorder", help="Also behind later events of the same key."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make refused rows pending again, so that the relay publishes them.

    They come back 500 at a time; what came back before a refusal stays. Exit code 1: refused, or a
    named row was left, because it was not refused or is not there.
    """
    if ids is not None and outbox is None:
        raise typer.BadParameter("an id is a row of one outbox; name it (--outbox)")

    async def again(engine: AsyncEngine) -> Requeued:
        chosen = None if ids is None else sorted(set(ids))
        total = await count_failed(engine, SCHEMA) if chosen is None else len(chosen)
        done = Requeued()
        with progress() as shown:
            task = shown.add_task("requeue", total=total)
            async for some in _pages(engine, chosen):
                await _page(
                    engine,
                    some,
                    done,
                    named=chosen is not None,
                    accept_reorder=accept_reorder,
                    dry_run=dry_run,
                )
                shown.advance(task, len(some))
        return done

    found = {name: ask(name, again) for name in asked_of(outbox)}
    if as_json:
        _print({name: done.document(dry_run=dry_run) for name, done in found.items()})
    else:
        for name, done in found.items():
            typer.echo(done.told(name, dry_run=dry_run))
            if done.whats_left:
                typer.echo(f"lethe: {done.whats_left}", err=True)
    if any(done.whats_left for done in found.values()):
        raise typer.Exit(1)


async def _page(
    engine: AsyncEngine,
    some: Sequence[int],
    done: Requeued,
    *,
    named: bool,
    accept_reorder: bool,
    dry_run: bool,
) -> None:
    """Bring one page of rows back and add it to what is `done`."""
    try:
        async with engine.begin() as connection:
            if named:
                done.left(await not_to_requeue(connection, some, SCHEMA))
            done.rows += await requeue(
                connection, some, accept_reorder=accept_reorder, schema=SCHEMA
            )
            if dry_run:
                await connection.rollback()
    except (ReorderError, RowGoneError) as error:
        raise type(error)(f"{error}; {done.before(dry_run=dry_run)}") from error


@app.command("purge")
def remove(
    *,
    outbox: Outbox = None,
    older_than: Annotated[
        timedelta, typer.Option(parser=age, metavar="AGE", help="Refused longer ago: 7d, 12h.")
    ],
    approve_by: Annotated[
        str, typer.Option(metavar="NAME", help="Who answers for it; kept for good.")
    ],
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Do it; without this only say what would be done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove refused rows for good, and note who, when and which; keys held back go on."""
    approval = _approval(older_than, approve_by)

    async def gone(engine: AsyncEngine) -> tuple[int, list[UUID]]:
        total = await purgeable(engine, older_than, SCHEMA)
        removed: list[UUID] = []
        with progress() as shown:
            task = shown.add_task("purge", total=total)
            while confirm:
                async with engine.begin() as connection:
                    some = await purge(connection, approval, SCHEMA)
                if not some:
                    break
                removed += some
                shown.advance(task, len(some))
        return total, removed

    found = {name: ask(name, gone) for name in asked_of(outbox)}
    if as_json:
        _print({name: purge_document(*each, confirm=confirm) for name, each in found.items()})
        return
    for name, (total, removed) in found.items():
        if confirm:
            typer.echo(
                f"{counted(len(removed))} of {name} {'is' if len(removed) == 1 else 'are'} removed"
            )
        else:
            typer.echo(
                f"{counted(total)} of {name} would be removed; nothing was (--confirm does it)"
            )


@app.command("schema")
def print_schema(
    *,
    schema: Annotated[str, typer.Option(help="Where the tables go.")] = SCHEMA,
    only: Annotated[list[Part] | None, typer.Option(help="A part; repeat it for more.")] = None,
) -> None:
    """Print the SQL that creates the library's tables, for databases migrated without Alembic."""
    if not schema:
        raise typer.BadParameter("a schema has a name (--schema)")
    typer.echo(schema_sql(schema, only or ALL_PARTS), nl=False)


def _without_one_more(some: list[OutboxRow], limit: int) -> list[OutboxRow]:
    """Leave out the row that was read to know whether there are more: the oldest sent one."""
    if len(some) <= limit:
        return some
    left = next((each for each in some if each.status is Status.SENT), some[-1])
    return [each for each in some if each is not left]


async def _pages(engine: AsyncEngine, chosen: list[int] | None) -> AsyncIterator[list[int]]:
    """Give what one transaction takes at a time: of `chosen`, or of every DLT_FAILED row."""
    if chosen is None:
        async for some in failed_pages(engine, SCHEMA, at_once=_AT_ONCE):
            yield some
    else:
        for at in range(0, len(chosen), _AT_ONCE):
            yield chosen[at : at + _AT_ONCE]


def _identity(text: str) -> int | UUID:
    if text.isascii() and text.isdigit():
        number = int(text)
        if number <= _LARGEST_ID:
            return number
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter("an id is a number, an event id a UUID") from None


def _approval(older_than: timedelta, name: str) -> Approval:
    try:
        return Approval(older_than, name)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None


def _print(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))
