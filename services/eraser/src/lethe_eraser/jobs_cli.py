"""What operators do with jobs and with records in quarantine: part of the group `lethe eraser`."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NoReturn, TypeVar
from uuid import UUID

import typer
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.domain import UNFINISHED, Job, JobState
from lethe_eraser.settings import EraserSettings
from lethe_eraser.storage import control, operations
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.operations import Answer, Refused, Standing
from lethe_eraser.storage.tables import SCHEMA
from lethe_outbox import Outbox
from lethe_runtime.database import create_engine, disposing, in_words
from lethe_runtime.settings import load

_T = TypeVar("_T")

Id = Annotated[UUID, typer.Argument(help="The job's id.", metavar="ID")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]

_NEEDS_LOOKING_AT: Final = (*UNFINISHED, JobState.BLOCKED, JobState.FAILED)
_MORE: Final = ("requests", "round", "batches", "objects gone")
_WHOLE_TABLE: Final = 120
"""Characters that a table with all of its columns takes."""
_LARGEST_PARTITION: Final = 2**31 - 1
_LARGEST_OFFSET: Final = 2**63 - 1

quarantine_app = typer.Typer(
    help="Records of intake that could not be read: nobody of their bucket is erased meanwhile.",
    no_args_is_help=True,
)


def jobs(
    *,
    states: Annotated[
        list[JobState] | None,
        typer.Option("--state", help="Only these; repeat it. Default: all that owe something."),
    ] = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Only jobs past their deadline.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: Json = False,
) -> None:
    """List jobs, the earliest deadline first."""

    async def ask(connection: AsyncConnection) -> list[Job]:
        return await operations.listed(
            connection, states or _NEEDS_LOOKING_AT, overdue=overdue, most=limit + 1
        )

    asked = _ask(ask)
    found = asked[:limit]
    if as_json:
        typer.echo(json.dumps([_document(job) for job in found], indent=2))
    else:
        console = Console()
        console.print(_table(found, console.width) if found else "no such jobs")
    if len(asked) > limit:
        typer.echo("there are more; --limit shows them", err=True)


def show(job_id: Id, *, as_json: Json = False) -> None:
    """Show one job: where it stands, and all that may stop it."""
    standing = _ask(lambda connection: operations.standing(connection, job_id))
    if standing is None:
        _no_such_job()
    document = _whole(standing)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in {**document, **_lines(standing)}.items():
        table.add_row(name.replace("_", " "), _shown(value))
    Console().print(table)


def pause(job_id: Id) -> None:
    """Let nothing more of a job begin; the batch at hand is finished."""
    answer = _ask(lambda connection: operations.pause(connection, job_id, paused=True))
    _tell(answer, "the job is paused", "the job was paused already")


def resume(job_id: Id) -> None:
    """Let a paused job go on."""
    answer = _ask(lambda connection: operations.pause(connection, job_id, paused=False))
    _tell(answer, "the job goes on in the window", "the job was not paused")


def run_now(
    job_id: Id,
    *,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="The product will feel it; this says you know.")
    ] = False,
) -> None:
    """Let a job run outside the window, from now until it ends."""
    if not confirm:
        _refuse("erasing by day may hurt the product; say --confirm if it must be", code=2)
    answer = _ask(lambda connection: operations.run_now(connection, job_id))
    _tell(answer, "the job runs at once, at any hour", "the job ran at any hour already")


def retry(job_id: Id) -> None:
    """Try a job again now that waits after errors, or that ended blocked or failed."""
    announcer = Announcer(Outbox(SCHEMA))
    answer = _ask(lambda connection: operations.retry(connection, announcer, job_id))
    _tell(answer, "the job is tried again in the window", "the job is tried again in the window")


@quarantine_app.command("list")
def list_quarantine(*, as_json: Json = False) -> None:
    """List the records that stop their bucket."""
    found = _ask(control.quarantined)
    documents = [
        {
            "record": _place(one.record),
            "bucket": one.record.bucket,
            "event_id": str(one.record.event_id) if one.record.event_id else None,
            "reason": one.record.reason,
            "set_aside_at": one.set_aside_at.isoformat(),
        }
        for one in found
    ]
    if as_json:
        typer.echo(json.dumps(documents, indent=2))
        return
    if not found:
        typer.echo("nothing is in quarantine")
        return
    console = Console()
    console.print(_quarantine(documents, console.width))


@quarantine_app.command("release")
def release_quarantine(
    record: Annotated[
        str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="The record, as listed.")
    ],
    *,
    by: Annotated[str, typer.Option(help="Your name.")],
    reason: Annotated[str, typer.Option(help="Why its people may be erased without it.")],
) -> None:
    """Let go of a record that is known to say nothing that matters any more."""
    place = _read_place(record)
    if not by.strip() or not reason.strip():
        _refuse("--by and --reason must say something", code=2)

    async def release(connection: AsyncConnection) -> int | None:
        released = await control.release(connection, place, by=by.strip(), note=reason.strip())
        return await control.count_beside(connection, place) if released else None

    left = _ask(release)
    if left is None:
        _refuse("no such record is in quarantine; see lethe eraser quarantine list")
    if left:
        typer.echo(f"released; other records stop its people still: {left}")
    else:
        typer.echo("released; its bucket is worked on again")


def add_to(app: typer.Typer) -> None:
    """Make these commands part of a group."""
    for command, name in (
        (jobs, "jobs"),
        (show, "show"),
        (pause, "pause"),
        (resume, "resume"),
        (run_now, "run-now"),
        (retry, "retry"),
    ):
        app.command(name)(command)
    app.add_typer(quarantine_app, name="quarantine")


def _ask(question: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
    url = load(EraserSettings).database_url

    async def asked() -> _T:
        engine = create_engine(url, application_name="lethe-eraser-cli", pool_size=1)
        async with disposing(engine), engine.begin() as connection:
            return await question(connection)

    with in_words(
        "the database", "the database has no jobs of this version; lethe migrate lays them"
    ):
        return asyncio.run(asked())


def _tell(answer: Answer, changed: str, unchanged: str) -> None:
    if answer is None:
        _no_such_job()
    if isinstance(answer, Refused):
        _refuse(answer.why)
    typer.echo(changed if answer.changed else unchanged)
    for stop in answer.stopped_by:
        typer.echo(f"what still stops it: {stop}")


def _no_such_job() -> NoReturn:
    _refuse("no such job; see lethe eraser jobs")


def _refuse(what: str, code: int = 1) -> NoReturn:
    typer.echo(f"lethe: {what}", err=True)
    raise typer.Exit(code)


def _document(job: Job) -> dict[str, Any]:
    return {
        "job_id": str(job.job_id),
        "state": job.state.value,
        "held_from": job.held_from.value if job.held_from else None,
        "paused": job.paused,
        "run_now": job.run_now,
        "deadline": job.deadline.isoformat(),
        "not_before": job.not_before.isoformat(),
        "requests": [str(id_) for id_ in sorted(job.requests)],
        "round": job.round,
        "batches": job.batches,
        "attempts": job.attempts,
        "error": job.error,
        "reasons": {reason.value: rows for reason, rows in job.reasons.items()},
        "totals": {name: totals.model_dump() for name, totals in job.totals.items()},
    }


def _whole(standing: Standing) -> dict[str, Any]:
    def moment(at: Any) -> str | None:
        return at.isoformat() if at else None

    return {
        **_document(standing.job),
        "subject_ref": standing.job.subject_ref,
        "created_at": standing.job.created_at.isoformat(),
        "started_at": moment(standing.started_at),
        "closed_at": moment(standing.closed_at),
        "retry_at": moment(standing.retry_at),
        "locked_until": moment(standing.job.locked_until),
        "holds": standing.holds,
        "waits_for": str(standing.waits_for) if standing.waits_for else None,
        "invalidations_left": standing.invalidations,
        "bucket": standing.bucket,
        "control_settled_until": moment(standing.settled_until),
        "quarantined_records": standing.quarantined,
        "blocked_rows": {reason.value: rows for reason, rows in standing.blocked.items()},
        "pages": [
            {
                "type": step.page.request_type,
                "source": step.page.source,
                "done": step.done,
                "deferred": step.deferred,
            }
            for step in standing.pages
        ],
    }


def _lines(standing: Standing) -> dict[str, list[str]]:
    """Say in lines what is nested too deep to be read as it is."""
    totals = {
        name: ", ".join(
            f"{count} {what.replace('_', ' ')}"
            for what, count in total.model_dump().items()
            if count
        )
        for name, total in standing.job.totals.items()
    }
    return {
        "totals": [f"{name}: {counts or 'nothing'}" for name, counts in totals.items()],
        "pages": [
            f"{step.page.request_type} in {step.page.source}: "
            + ("done" if step.done else "not done")
            + (f", {step.deferred} rows deferred" if step.deferred else "")
            for step in standing.pages
        ],
    }


def _table(found: list[Job], width: int) -> Table:
    """List jobs; on a narrow terminal only the columns that say which are to be looked at."""
    whole = width >= _WHOLE_TABLE
    table = Table(box=HEAVY_HEAD if whole else None, pad_edge=whole)
    # An id that is cut short leads nowhere.
    table.add_column("job", no_wrap=True)
    for name in ("state", "deadline", *(_MORE if whole else ())):
        table.add_column(name, overflow="fold")
    for job in found:
        state = f"held ({job.held_from})" if job.held_from else str(job.state)
        marks = [name for name, on in (("paused", job.paused), ("now", job.run_now)) if on]
        reasons = [f"  {reason}: {rows}" for reason, rows in job.reasons.items()]
        counts = (
            len(job.requests),
            job.round,
            job.batches,
            sum(totals.objects_gone for totals in job.totals.values()),
        )
        table.add_row(
            "\n".join([str(job.job_id), *reasons]),
            (", " if whole else "\n").join([state, *marks]),
            f"{job.deadline:%Y-%m-%d %H:%M}Z",
            *(str(count) for count in (counts if whole else ())),
        )
    return table


def _quarantine(documents: Sequence[Mapping[str, object]], width: int) -> Table:
    """List records; on a narrow terminal the event stands below its record."""
    whole = width >= _WHOLE_TABLE
    table = Table(box=HEAVY_HEAD if whole else None, pad_edge=whole)
    table.add_column("record", no_wrap=True)
    for name in ("bucket", *(("event id",) if whole else ()), "reason", "set aside at"):
        table.add_column(name, overflow="fold")
    for document in documents:
        record, bucket, event_id, reason, set_aside_at = map(_shown, document.values())
        cells = [record, bucket, event_id] if whole else [f"{record}\n  {event_id}", bucket]
        since = datetime.fromisoformat(set_aside_at).astimezone(UTC)
        table.add_row(*cells, reason, f"{since:%Y-%m-%d %H:%M}Z")
    return table


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        value = [f"{name}: {of}" for name, of in value.items()]
    if isinstance(value, list):
        value = "\n".join(str(one) for one in value)
    return "-" if value in (None, "") else str(value)


def _place(record: control.SetAside) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _read_place(text: str) -> tuple[str, int, int]:
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        _refuse("write the record as it is listed: TOPIC/PARTITION/OFFSET", code=2)
    place = topic, int(partition), int(offset)
    if place[1] > _LARGEST_PARTITION or place[2] > _LARGEST_OFFSET:
        _refuse("no record has such a partition or offset; see lethe eraser quarantine list", 2)
    return place
