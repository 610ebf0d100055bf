"""The group `lethe dlt`: look at dead letters, and send them back where they came from.

It works on reporting's database and Kafka, with reporting's settings, whether the service runs or
not. Exit codes: 0 done, 1 something was refused or could not be reached, 2 wrong usage or settings.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar

import typer
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.topics import TOPICS
from lethe_outbox import replay as publish_again
from lethe_reporting.api.dead_letters import DeadLetterDocument
from lethe_reporting.settings import ReportingSettings
from lethe_reporting.storage.dead_letters import (
    DEAD_LETTER_TOPICS,
    DeadLetter,
    DeadLetters,
    State,
    Wanted,
)
from lethe_runtime.database import SCHEMA, TRANSIENT, create_engine, disposing
from lethe_runtime.settings import load

_LARGEST_ID: Final = 2**63 - 1
_T = TypeVar("_T")

app = typer.Typer(help="Dead letters: records that nobody could handle.", no_args_is_help=True)


class DeadLetterCommandError(Exception):
    """A command cannot be done; the message says why and names nobody."""


Topic = Annotated[
    str | None, typer.Option(help=f"Only of this topic: {' or '.join(DEAD_LETTER_TOPICS)}.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def dlt() -> None:
    """Look at dead letters, and send them back where they came from."""


@app.command("list")
def list_letters(
    *,
    state: Annotated[State, typer.Option(help="Only in this state.")] = State.OPEN,
    every: Annotated[bool, typer.Option("--all", help="In every state.")] = False,
    topic: Topic = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest ones.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first, without what they hold."""
    _check_topic(topic)
    wanted = Wanted(state=None if every else state, topic=topic, limit=limit)
    found = _with_letters(lambda letters, _engine, _settings: letters.page(wanted))
    shown = [DeadLetterDocument.of(each) for each in found]
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in shown], indent=2))
        return
    if not shown:
        typer.echo("there are none", err=True)
    for each in shown:
        typer.echo(_line(each))


@app.command()
def replay(
    *,
    ids: Annotated[
        list[int] | None, typer.Argument(min=1, max=_LARGEST_ID, help="As `list` shows them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open one.")] = False,
    topic: Topic = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the topic they came from: same bytes, same event id.

    One that was replayed before is not sent again. Whoever handled the event before ignores it.
    """
    if every == bool(ids):
        raise typer.BadParameter("name ids, or say --all")
    if topic is not None and not every:
        raise typer.BadParameter("--topic goes with --all")
    _check_topic(topic)
    outcomes = _with_letters(
        lambda letters, engine, settings: _replayed(letters, engine, settings, ids, topic)
    )
    if as_json:
        typer.echo(json.dumps([{"id": key, "outcome": out} for key, out in outcomes.items()]))
    else:
        for key, outcome in outcomes.items():
            typer.echo(f"{key}\t{outcome.replace('_', ' ')}")
        if not outcomes:
            typer.echo("there are none", err=True)
    if any(outcome not in ("replayed", "replayed_before") for outcome in outcomes.values()):
        raise typer.Exit(1)


async def _replayed(
    letters: DeadLetters,
    engine: AsyncEngine,
    settings: ReportingSettings,
    ids: Sequence[int] | None,
    topic: str | None,
) -> dict[int, str]:
    """Replay what can be, and say what became of each."""
    chosen = sorted(set(ids)) if ids else await letters.open_ids(topic)
    known = {each.id: each for each in await letters.named(chosen)}
    outcomes = {key: _refusal(known.get(key)) for key in chosen}
    sendable = [key for key, refusal in outcomes.items() if refusal is None]
    done = await publish_again(engine, settings.kafka_bootstrap, sendable, schema=SCHEMA)
    return {
        # Not sent although it was open a moment ago: somebody else was faster.
        key: refusal or ("replayed" if key in done.replayed else "replayed_before")
        for key, refusal in outcomes.items()
    }


def _refusal(letter: DeadLetter | None) -> str | None:
    """Say why a dead letter is not sent; None if it is."""
    if letter is None:
        return "unknown"
    if letter.state == State.REPLAYED:
        return "replayed_before"
    if letter.state == State.DISCARDED:
        return "discarded"
    # The origin stands in the record's headers, which anybody may have written.
    return None if letter.origin_topic in TOPICS else "without_origin"


def _with_letters(
    work: Callable[[DeadLetters, AsyncEngine, ReportingSettings], Awaitable[_T]],
) -> _T:
    settings = load(ReportingSettings)

    async def main() -> _T:
        engine = create_engine(settings.database_url, application_name="lethe-dlt")
        async with disposing(engine):
            return await work(DeadLetters(engine), engine, settings)

    with _told():
        return asyncio.run(main())


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a server's absence raises into one line."""
    try:
        yield
    except KafkaError as error:
        raise DeadLetterCommandError(
            f"Kafka does not take the record ({type(error).__name__}); what was replayed before "
            "stays replayed, so say the same again later"
        ) from error
    except TRANSIENT as error:
        raise DeadLetterCommandError(
            f"a server does not answer ({type(error).__name__})"
        ) from error


def _check_topic(topic: str | None) -> None:
    if topic is not None and topic not in DEAD_LETTER_TOPICS:
        raise typer.BadParameter(f"there are {' and '.join(DEAD_LETTER_TOPICS)}")


def _line(each: DeadLetterDocument) -> str:
    parts: tuple[Any, ...] = (
        each.id,
        each.state,
        f"{each.recorded_at:%Y-%m-%dT%H:%M:%SZ}",
        each.topic,
        each.reason,
        each.refused_by or "-",
        each.event_id or "-",
        each.subject_ref or "-",
    )
    return "\t".join(str(part) for part in parts)
