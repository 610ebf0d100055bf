"""How dead letters and what became of them are printed: tables for people, JSON for programs.

Nothing is printed that a record holds; `DeadLetterDocument` decides what may be seen.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import typer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from lethe_outbox import Fate
from lethe_outbox.dead_letters.deciding import Decision, refused_by_relay
from lethe_outbox.dead_letters.reader import OPEN
from lethe_outbox.kafka.dead_letter_topic import RELAY_PREFIX
from lethe_reporting.api.dead_letters import DeadLetterDocument
from lethe_reporting.storage.dead_letters import DeadLetter

_PIPE_WIDTH: Final = 250
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_WHOLE_TABLE: Final = 240
"""Characters that a table with all of its columns takes, ids and keys unfolded."""
_SHORT: Final = ("id", "state", "recorded", "reason", "refused by")
_NEXT: Final = {
    Fate.UNKNOWN: "there is no such dead letter; lethe dlt list --all shows those there are",
    Fate.WITHOUT_ORIGIN: "it names no topic of ours to go back to; lethe dlt discard gives it up",
    Fate.TOO_OLD: "its consumers may have forgotten it; --beyond-inbox replays it all the same",
}
_EVERY: Final = 100
"""Without a terminal, progress is told after so many."""


def remedy(letter: DeadLetter, row: int | None) -> str | None:
    """Name the command that brings back what the relay was refused."""
    if not refused_by_relay(letter.refused_by, letter.origin_offset):
        return None
    outbox = (letter.refused_by or "").removeprefix(RELAY_PREFIX)
    # It stands in the record's headers, which anybody may have written, and becomes a command.
    outbox = outbox if _NAME.fullmatch(outbox) else "NAME"
    return f"lethe outbox requeue --outbox {outbox} --id {'ID' if row is None else row}"


class Printer:
    """Prints dead letters."""

    def __init__(
        self,
        letters: Sequence[DeadLetter],
        rows: Mapping[int, int],
        decided: Sequence[Decision] = (),
    ) -> None:
        self._shown = [DeadLetterDocument.of(each) for each in letters]
        self._remedies = {each.id: remedy(each, rows.get(each.id)) for each in letters}
        self._decided = decided

    def json(self) -> None:
        """Print a list."""
        typer.echo(json.dumps([self._document(each) for each in self._shown], indent=2))

    def json_of_one(self) -> None:
        """Print one document, with what was decided."""
        decided = [
            {
                "decision": each.decision,
                "decided_by": each.decided_by,
                "reason": each.reason,
                "decided_at": each.decided_at.isoformat(),
            }
            for each in self._decided
        ]
        typer.echo(json.dumps({**self._document(self._shown[0]), "decisions": decided}, indent=2))

    def table(self) -> None:
        """Print one line each."""
        if not self._shown:
            typer.echo("there are none", err=True)
            return
        console = _console()
        if console.width < _WHOLE_TABLE:
            typer.echo("\n".join(self._lines()))
        else:
            console.print(self._whole_table())
        self._print_remedies()

    def one(self) -> None:
        """Print field by field, and what was decided."""
        each = self._shown[0]
        for name, value in each.model_dump(mode="json").items():
            typer.echo(f"{name + ':':<20}{'-' if value is None else value}")
        for one in self._decided:
            why = f": {one.reason}" if one.reason else ""
            typer.echo(
                f"{one.decided_at:%Y-%m-%d %H:%M:%S} {one.decision} by {one.decided_by}{why}"
            )
        self._print_remedies()

    def _whole_table(self) -> Table:
        table = Table()
        for name in (*_SHORT, "topic", "event", "key"):
            table.add_column(name, overflow="fold")
        for each in self._shown:
            table.add_row(
                *_short(each),
                each.topic,
                str(each.event_id or "-"),
                each.subject_ref or "-",
            )
        return table

    def _lines(self) -> Iterator[str]:
        """Give a line each, and below it what is long: folded, an id cannot be copied."""
        rows = [_SHORT, *map(_short, self._shown)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

        def line(row: Sequence[str]) -> str:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            return "  ".join(cells).rstrip()

        yield line(_SHORT)
        for each in self._shown:
            yield line(_short(each))
            yield f"  {each.topic}"
            if each.event_id is not None:
                yield f"  event {each.event_id}"
            if each.subject_ref is not None:
                yield f"  key {each.subject_ref}"

    def _document(self, shown: DeadLetterDocument) -> dict[str, Any]:
        return {**shown.model_dump(mode="json"), "bring_back": self._remedies[shown.id]}

    def _print_remedies(self) -> None:
        for each in self._shown:
            command = self._remedies[each.id]
            if command is not None and each.state == OPEN:
                typer.echo(f"{each.id}: its row is in the outbox; bring it back: {command}")


def print_fates(
    fates: Mapping[int, Fate], remedies: Mapping[int, str | None], *, dry_run: bool, as_json: bool
) -> None:
    """Print what became of each, or would."""
    done = {Fate.REPLAYED, Fate.DISCARDED}

    def said(fate: Fate) -> str:
        return f"would_be_{fate.value}" if dry_run and fate in done else fate.value

    if as_json:
        found = [
            {"id": letter, "outcome": said(fate)}
            | ({"bring_back": remedies[letter]} if remedies.get(letter) else {})
            for letter, fate in fates.items()
        ]
        typer.echo(json.dumps(found))
        return
    for letter, fate in fates.items():
        hint = f"\t{remedies[letter]}" if remedies.get(letter) else ""
        typer.echo(f"{letter}\t{said(fate).replace('_', ' ')}{hint}")
    if not fates:
        typer.echo("there are none", err=True)
        return
    counts = Counter(said(fate).replace("_", " ") for fate in fates.values())
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items()), err=True)
    for fate, remark in _NEXT.items():
        if fate in fates.values():
            typer.echo(f"{fate.value.replace('_', ' ')}: {remark}", err=True)


def _short(each: DeadLetterDocument) -> tuple[str, ...]:
    recorded = f"{each.recorded_at:%Y-%m-%d %H:%M:%S}"
    return str(each.id), each.state, recorded, each.reason, each.refused_by or "-"


class Progress:
    """Shows on standard error how far a long command is."""

    def __init__(self, chosen: Sequence[int], done: str) -> None:
        self._chosen = chosen
        self._total = len(chosen)
        self._count = 0
        self._bar = Bar(console=Console(stderr=True), transient=True)
        self._tty = sys.stderr.isatty()
        self._task = self._bar.add_task(done, total=self._total)

    def __enter__(self) -> Self:
        if self._tty:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tty:
            self._bar.stop()
        begun = self._count or isinstance(error, KafkaError)
        if error is not None and begun and self._count < self._total:
            # Whatever the next one is refused for, those behind it wait for it.
            told = f"{self._count} of {self._total} were dealt with before"
            typer.echo(f"{told}; the next one is {self._chosen[self._count]}", err=True)

    def told(self, letter: int, fate: Fate) -> None:
        """Count one that is dealt with."""
        del letter, fate
        self._count += 1
        self._bar.advance(self._task)
        if not self._tty and self._count % _EVERY == 0:
            typer.echo(f"{self._count} of {self._total} dealt with", err=True)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
