"""The group `lethe dlt`: look at dead letters, send them back, or give them up.

It works on reporting's database and Kafka, with reporting's settings, whether the service runs or
not. Exit codes: 0 done, 1 something was refused or could not be reached, 2 wrong usage or settings,
130 interrupted. Nothing it prints holds what a record holds: of its key only a `subject_ref`.
"""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Final, TypeVar
from uuid import UUID

import typer
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.topics import TOPICS
from lethe_outbox import Fate, ReplayOptions, Which
from lethe_outbox.dead_letters import deciding
from lethe_outbox.dead_letters.reader import OPEN, State
from lethe_reporting.dlt_cli.printing import Printer, Progress, print_fates, remedy
from lethe_reporting.dlt_cli.times import moment
from lethe_reporting.settings import ReportingSettings
from lethe_reporting.storage.dead_letters import DEAD_LETTER_TOPICS, DeadLetters, Wanted
from lethe_runtime.database import SCHEMA, create_engine, disposing, in_words
from lethe_runtime.settings import load

_LARGEST_ID: Final = 2**63 - 1
_WELL: Final = {Fate.REPLAYED, Fate.REPLAYED_BEFORE, Fate.DISCARDED, Fate.DISCARDED_BEFORE}
_T = TypeVar("_T")

app = typer.Typer(help="Dead letters: records that nobody could handle.", no_args_is_help=True)


class DeadLetterCommandError(Exception):
    """A command cannot be done; the message says why and names nobody."""


def _topic(value: str | None) -> str | None:
    if value is not None and value not in DEAD_LETTER_TOPICS:
        raise typer.BadParameter(f"there are {' and '.join(DEAD_LETTER_TOPICS)}")
    return value


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that nobody gave a name.
        raise typer.BadParameter("the system's user has no name; say who decides (--by)") from None


def _moment(value: str | None) -> str | None:
    if value is not None:
        try:
            moment(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return value


Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="ID", min=1, max=_LARGEST_ID, help="As `list` shows them."),
]
Every = Annotated[bool, typer.Option("--all", help="Every open one that the filters leave.")]
Topic = Annotated[
    str | None,
    typer.Option(callback=_topic, help=f"Only of this topic: {' or '.join(DEAD_LETTER_TOPICS)}."),
]
Key = Annotated[str | None, typer.Option(help="Only of this key, a subject_ref.")]
EventId = Annotated[UUID | None, typer.Option(help="Only of this event.")]
ErrorReason = Annotated[str | None, typer.Option(help="Only of this reason, e.g. too_large.")]
RefusedBy = Annotated[str | None, typer.Option(help="Only of this group, or of a relay.")]
Since = Annotated[
    str | None,
    typer.Option(callback=_moment, help="Recorded at or after: ISO 8601 (UTC) or 90m, 2h, 3d ago."),
]
Until = Annotated[str | None, typer.Option(callback=_moment, help="Recorded before.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def dlt() -> None:
    """Look at dead letters, send them back where they came from, or give them up."""


@app.command("list")
def list_letters(
    *,
    state: Annotated[State, typer.Option(help="Only in this state.")] = OPEN,
    every: Annotated[bool, typer.Option("--all", help="In every state.")] = False,
    topic: Topic = None,
    key: Key = None,
    event_id: EventId = None,
    error_reason: ErrorReason = None,
    refused_by: RefusedBy = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest ones.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first, without what they hold."""
    which = _which(topic, key, event_id, error_reason, refused_by, since, until)
    if not every:
        which = replace(which, state=state)

    async def looked(desk: _Desk) -> tuple[Printer, bool]:
        found = await desk.letters.page(Wanted(which, limit + 1))
        shown = found[:limit]
        rows = await desk.letters.outbox_rows([each.id for each in shown])
        return Printer(shown, rows), len(found) > limit

    printer, more = _at_desk(looked)
    printer.json() if as_json else printer.table()
    if more:
        typer.echo("there are more; --limit shows them", err=True)


@app.command()
def show(
    letter: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=_LARGEST_ID, help="As `list` shows it.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter, what was decided about it, and what can be done; not what it holds."""

    async def looked(desk: _Desk) -> Printer:
        found = await desk.letters.page(Wanted(Which(ids=[letter]), 1))
        if not found:
            raise DeadLetterCommandError(
                f"there is no dead letter {letter}; lethe dlt list --all shows those there are"
            )
        rows = await desk.letters.outbox_rows([letter])
        return Printer(found, rows, await desk.letters.decided(letter))

    printer = _at_desk(looked)
    printer.json_of_one() if as_json else printer.one()


@app.command()
def replay(
    *,
    ids: Ids = None,
    every: Every = False,
    topic: Topic = None,
    key: Key = None,
    event_id: EventId = None,
    error_reason: ErrorReason = None,
    refused_by: RefusedBy = None,
    since: Since = None,
    until: Until = None,
    dry_run: DryRun = False,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Most per second.")] = 100,
    by: Annotated[str | None, typer.Option(help="Who decides. Default: the system's user.")] = None,
    beyond_inbox: Annotated[
        bool,
        typer.Option(
            "--beyond-inbox", help="Also events so old that consumers may have forgotten them."
        ),
    ] = False,
    from_outbox_too: Annotated[
        bool,
        typer.Option(
            "--from-outbox-too",
            help="Also what the relay was refused, instead of `outbox requeue`.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the topic they came from: same bytes, same event id.

    One that was replayed before is not sent again. Whoever handled the event before ignores it.
    Safe to say again after an interruption.
    """
    filters = _which(topic, key, event_id, error_reason, refused_by, since, until)
    which = _chosen(ids, filters, every=every)
    decided_by = by or _user()

    async def sent(desk: _Desk) -> _Done:
        options = ReplayOptions(
            by=decided_by,
            origins=TOPICS,
            inbox_keeps=None if beyond_inbox else timedelta(days=desk.settings.inbox_keep_days),
            from_outbox_too=from_outbox_too,
            per_second=rate,
        )
        chosen = await desk.chosen(which)
        if dry_run:
            fates = await deciding.judge(desk.engine, chosen, options, schema=SCHEMA)
        else:
            with Progress(chosen, "replayed") as progress:
                fates = await deciding.replay(
                    desk.engine,
                    desk.settings.brokers,
                    chosen,
                    options,
                    schema=SCHEMA,
                    on_fate=progress.told,
                )
        return fates, await desk.remedies(fates)

    _finish(*_at_desk(sent), dry_run=dry_run, as_json=as_json)


@app.command()
def discard(
    *,
    ids: Ids = None,
    every: Every = False,
    topic: Topic = None,
    key: Key = None,
    event_id: EventId = None,
    error_reason: ErrorReason = None,
    refused_by: RefusedBy = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[str, typer.Option(help="Who decides; kept.")],
    reason: Annotated[str, typer.Option(help="Why; kept. Name no person.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up for good: nobody will handle them. Who, when and why is kept."""
    if not by.strip() or not reason.strip():
        raise typer.BadParameter("--by and --reason must say something")
    filters = _which(topic, key, event_id, error_reason, refused_by, since, until)
    which = _chosen(ids, filters, every=every)

    async def closed(desk: _Desk) -> _Done:
        chosen = await desk.chosen(which)
        if dry_run:
            return await deciding.judge(desk.engine, chosen, None, schema=SCHEMA), {}
        with Progress(chosen, "discarded") as progress:
            fates = await deciding.discard(
                desk.engine,
                chosen,
                by=by,
                reason=reason,
                schema=SCHEMA,
                on_fate=progress.told,
            )
        return fates, {}

    _finish(*_at_desk(closed), dry_run=dry_run, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Desk:
    """What a command works with."""

    settings: ReportingSettings
    engine: AsyncEngine
    letters: DeadLetters

    async def chosen(self, which: Which) -> Sequence[int]:
        """List those that are meant; ids that were named are among them, known or not."""
        return sorted(set(which.ids)) if which.ids else await self.letters.chosen(which)

    async def remedies(self, fates: Mapping[int, Fate]) -> dict[int, str | None]:
        """Say how those are brought back that are still in an outbox."""
        left = [one for one, fate in fates.items() if fate is Fate.IN_OUTBOX]
        rows = await self.letters.outbox_rows(left)
        found = await self.letters.page(Wanted(Which(ids=left), len(left)))
        return {each.id: remedy(each, rows.get(each.id)) for each in found}


_Done = tuple[dict[int, Fate], dict[int, str | None]]


def _which(
    topic: str | None,
    key: str | None,
    event_id: UUID | None,
    error_reason: str | None,
    refused_by: str | None,
    since: str | None,
    until: str | None,
) -> Which:
    return Which(
        topic=topic,
        key=None if key is None else key.encode(),
        event_id=event_id,
        reason=error_reason,
        refused_by=refused_by,
        since=None if since is None else moment(since),
        until=None if until is None else moment(until),
    )


def _chosen(ids: Sequence[int] | None, filters: Which, *, every: bool) -> Which:
    """Take ids, or open ones by filters; never everything by mistake."""
    if ids and (every or filters != Which()):
        raise typer.BadParameter("name ids, or filters, not both")
    if ids:
        return Which(ids=ids)
    if not every and filters == Which():
        raise typer.BadParameter("name ids or filters, or say --all")
    return replace(filters, state=OPEN)


def _finish(
    fates: Mapping[int, Fate],
    remedies: Mapping[int, str | None],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    print_fates(fates, remedies, dry_run=dry_run, as_json=as_json)
    if not set(fates.values()) <= _WELL:
        raise typer.Exit(1)


def _at_desk(work: Callable[[_Desk], Awaitable[_T]]) -> _T:
    settings = load(ReportingSettings)

    async def main() -> _T:
        engine = create_engine(settings.database_url, application_name="lethe-dlt")
        async with disposing(engine):
            return await work(_Desk(settings, engine, DeadLetters(engine)))

    with _told():
        return asyncio.run(main())


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a server's absence raises into one line."""
    try:
        with in_words(
            "reporting's database",
            "the database has no dead letters of this version; lethe migrate --only reporting "
            "lays them",
        ):
            yield
    except KafkaError as error:
        raise DeadLetterCommandError(
            f"Kafka does not take the record ({type(error).__name__}); what was replayed before "
            "stays replayed, so say the same again later"
        ) from error
    except KeyboardInterrupt:
        typer.echo("interrupted; say the same again to go on", err=True)
        raise typer.Exit(130) from None
