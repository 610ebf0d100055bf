"""The group `lethe eraser`, and the eraser's part of `lethe migrate`."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, NoReturn

import typer
from sqlalchemy.exc import ProgrammingError

from lethe_contracts.errors import SubjectError
from lethe_contracts.subject import normalise
from lethe_eraser.catalog import CatalogError
from lethe_eraser.consumer import GROUP, TOPICS
from lethe_eraser.container import EraserContainer
from lethe_eraser.domain import Job
from lethe_eraser.execute.preview import Preview
from lethe_eraser.jobs_cli import add_to
from lethe_eraser.objects import ObjectStoreError, ObjectStoreUnavailableError
from lethe_eraser.settings import EraserSettings
from lethe_eraser.storage.tables import MIGRATIONS, VERSION_TABLE
from lethe_outbox import initialise_group
from lethe_runtime import database, lifecycle, logging, sentry
from lethe_runtime.database_away import why_away
from lethe_runtime.settings import load

_UNCOUNTED: Final[tuple[type[Exception], ...]] = (
    *database.TRANSIENT,
    ProgrammingError,
    ObjectStoreError,
)
_USAGE: Final = 2
"""Exit code: said wrongly, or with settings that cannot be used."""

_CUSTOMER: Final = {
    None: "unknown, the catalog names no active_account",
    False: "no",
    True: "yes; nothing is erased, the job ends blocked: subject_active",
}
_WITHOUT_KEYS: Final = "unknown without LETHE_ERASER_SUBJECT_REF_KEYS"

app = typer.Typer(help="Erases people from the product's tables and S3.", no_args_is_help=True)


@app.callback()
def eraser() -> None:
    """Erase people from the product's tables and S3."""


@app.command()
def run() -> None:
    """Run the service until SIGTERM."""
    settings = load(EraserSettings)
    logging.configure("eraser", settings.log_level)
    sentry.configure("eraser", settings.sentry_dsn)
    container = _container(settings)
    code = lifecycle.run(
        "eraser",
        {
            "http": container.server().run,
            "consumer": container.consumer().run,
            "inbox": container.inbox_keeper().run,
            "executor": container.checked_executor().run,
            "database": container.database_watch().run,
            "s3": container.s3_watch().run,
            "sample": container.sampler().run,
        },
        drain_seconds=settings.drain_seconds,
        resources=[
            database.disposing(container.engine()),
            container.wake_up(),
            container.objects(),
            container.cdn(),
        ],
    )
    raise typer.Exit(code)


@app.command()
def preview(
    subject: Annotated[
        str,
        typer.Argument(metavar="SUBJECT", help="The person's account id; - reads it from stdin."),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count what erasing a person would touch: per table, bucket and outcome. Touches nothing."""
    settings = load(EraserSettings)
    logging.configure("eraser", settings.log_level, stream=sys.stderr)
    try:
        person = normalise(sys.stdin.read() if subject == "-" else subject)
    except SubjectError as error:
        _refuse(str(error))
    found = asyncio.run(_preview(_container(settings), person))
    typer.echo(json.dumps(found.document(), indent=2) if as_json else _table(found))


add_to(app)


def migrate() -> str:
    """Bring the eraser's tables to what this program needs, and its consumer group into being."""
    settings = load(EraserSettings)
    reached = database.migrate(settings.database_url, MIGRATIONS, VERSION_TABLE)
    asyncio.run(initialise_group(settings.brokers, GROUP, TOPICS))
    return f"at {reached}"


def _container(settings: EraserSettings) -> EraserContainer:
    container = EraserContainer(settings=settings)
    container.check_dependencies()
    try:
        container.catalog()
        container.handlers()
    except CatalogError as error:
        _refuse("the catalog is not usable:\n  " + "\n  ".join(error.problems))
    return container


async def _preview(container: EraserContainer, subject: str) -> Preview:
    try:
        async with database.disposing(container.engine()), container.objects():
            return await container.previewer().preview(subject)
    except _UNCOUNTED as error:
        _refuse(f"nothing could be counted: {_why(error)}", code=1)


def _why(error: Exception) -> str:
    match error:
        case ProgrammingError():
            return "the catalog does not fit the product's tables; lethe catalog check says where"
        case ObjectStoreUnavailableError():
            return f"S3 does not answer ({error.code})"
        case ObjectStoreError():
            return f"S3 refused ({logging.error_class(error)}); lethe catalog check says more"
        case _:
            return f"the product's database {why_away(error)}"


def _refuse(what: str, code: int = _USAGE) -> NoReturn:
    typer.echo(f"lethe: {what}", err=True)
    raise typer.Exit(code)


def _table(found: Preview) -> str:
    titles = {
        "client_rows": "client rows per table",
        "requests": "client rows per type",
        "rows": "rows to be masked per table",
        "objects": "objects per bucket, and what becomes of them",
        "blocked": "rows left, and why",
    }
    lines: list[str] = []
    document: Mapping[str, Any] = found.document()
    for name, title in titles.items():
        counts = dict(_flat(document[name]))
        lines.append(f"{title}: {sum(counts.values())}")
        lines += [f"  {label:<44} {count:>10}" for label, count in counts.items()]
    holds = "a legal hold" if found.holds == 1 else f"{found.holds} legal holds"
    held = "no" if found.holds == 0 else f"by {holds}; nothing is erased meanwhile"
    seconds = found.expected_seconds
    unknown = found.holds is None
    job = "none" if found.job is None else _standing(found.job)
    lines += [
        f"references that lead nowhere known: {document['unresolved']}",
        f"objects named and kept (shared, or somebody else's): {found.objects_kept}",
        f"job: {_WITHOUT_KEYS if unknown else job}",
        f"held: {_WITHOUT_KEYS if unknown else held}",
        f"customer: {_CUSTOMER[found.is_customer]}",
        "expected time of one worker: "
        + ("unknown, no rate was measured yet" if seconds is None else f"{seconds:.0f} s"),
    ]
    return "\n".join(lines)


def _flat(counts: Mapping[str, int | Mapping[str, int]]) -> Iterator[tuple[str, int]]:
    for label, count in counts.items():
        if isinstance(count, int):
            yield label, count
        else:
            yield from ((f"{label}, {below}", number) for below, number in count.items())


def _standing(job: Job) -> str:
    return f"{job.job_id} ({job.state})"
