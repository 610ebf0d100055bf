"""The group `lethe catalog`: hold the catalog to the product, explain it, and write its entries."""

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from textwrap import wrap
from typing import Annotated, NoReturn, TypeVar

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import CatalogError, Finding, did_you_mean
from lethe_eraser.catalog_schema import json_schema
from lethe_eraser.check import check
from lethe_eraser.check.explain import (
    ColumnFate,
    SetFate,
    account_rule,
    explain,
    explain_options,
)
from lethe_eraser.check.scaffold import scaffold
from lethe_eraser.container import EraserContainer
from lethe_eraser.objects import ObjectStoreUnavailableError
from lethe_eraser.settings import EraserSettings
from lethe_eraser.storage.product_schema import describe
from lethe_runtime import database, logging
from lethe_runtime.database_away import why_away
from lethe_runtime.settings import load

UNCOVERED = 1
"""Exit code: something of the product that nobody claims."""
REFUSED = 2
"""Exit code: erasing by this catalog would fail, or it could not be checked."""
AWAY = 1
"""Exit code of what only shows something: a server does not answer."""
NO_SUCH_THING = 1
"""Exit code of what only shows something: there is no such table or type, or no entry for it."""

_T = TypeVar("_T")

app = typer.Typer(
    help="Holds the catalog to the product's tables, and explains it.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("check")
def check_catalog(*, as_json: AsJson = False) -> None:
    """Hold the catalog to the live schema, a sample of rows, and S3. Writes nothing.

    Exit code 0: all is covered; 1: something nobody claims; 2: the catalog cannot be used.
    """
    problems: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    try:
        container = _container()
        findings = _ask(container, lambda asked: _checked(asked, container), away=REFUSED)
    except CatalogError as error:
        problems = error.problems
    code = REFUSED if problems else UNCOVERED if findings else 0
    if as_json:
        said = [{"kind": f.kind, "where": f.where, "says": f.says} for f in findings]
        outcome = ("covered", "uncovered", "refused")[code]
        document = {"outcome": outcome, "problems": list(problems), "findings": said}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            typer.echo(f"refused: {problem}")
        for found in findings:
            typer.echo(f"{found.kind}: {found.where}: {found.says}")
        if not code:
            typer.echo("everything is covered")
    raise typer.Exit(code)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a catalog, for editors that complete YAML."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command("scaffold")
def print_entry(
    table: Annotated[str, typer.Argument(help="With its schema, unless that is public.")],
) -> None:
    """Print the entry for a new table, from its columns and a sample of rows. Writes nothing."""
    container = _usable()
    catalog = container.catalog()
    try:
        typer.echo(_ask(container, lambda asked: scaffold(asked, catalog, table)), nl=False)
    except CatalogError as error:
        _refuse(str(error), NO_SUCH_THING)


@app.command("explain")
def explain_type(
    request_type: Annotated[str, typer.Argument(metavar="TYPE")], *, as_json: AsJson = False
) -> None:
    """Say what happens to each column of a request type, and to the objects it names."""
    container = _usable()
    catalog = container.catalog()
    feature = catalog.features.get(request_type)
    if feature is None:
        near = did_you_mean(request_type, catalog.features)
        _refuse(f"unknown type {request_type}; {near}", NO_SUCH_THING)
    tables = {(t.table.schema, t.table.name) for t in feature.tables}
    fates = explain(feature, _ask(container, lambda asked: describe(asked, tables)))
    read = explain_options(feature, catalog.reference_sets)
    rule = account_rule(catalog.active_account)
    if as_json:
        document = {
            "type": request_type,
            "handler": feature.handler,
            "active_account": rule,
            "columns": [fate.document() for fate in fates],
            "options": [fate.document() for fate in read],
        }
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{request_type}, by the handler {feature.handler}")
    lines = [*_lines(fates), *_read_lines(read), *([rule] if rule is not None else [])]
    for line in _folded(lines) if sys.stdout.isatty() else lines:
        typer.echo(line)


def _container() -> EraserContainer:
    settings = load(EraserSettings)
    logging.configure("eraser", settings.log_level, stream=sys.stderr)
    container = EraserContainer(settings=settings)
    container.handlers()  # their options are part of the catalog
    return container


def _usable() -> EraserContainer:
    try:
        return _container()
    except CatalogError as error:
        _refuse(str(error))


async def _checked(connection: AsyncConnection, container: EraserContainer) -> Sequence[Finding]:
    findings = await check(connection, container.catalog())
    async with container.objects() as objects:
        if unfit := await objects.problems():
            raise CatalogError(unfit)
    return findings


def _ask(
    container: EraserContainer,
    question: Callable[[AsyncConnection], Awaitable[_T]],
    *,
    away: int = AWAY,
) -> _T:
    engine = container.engine().execution_options(postgresql_readonly=True)

    async def ask() -> _T:
        async with database.disposing(engine), engine.connect() as connection:
            return await question(connection)

    try:
        return asyncio.run(ask())
    except database.TRANSIENT as error:
        _refuse(f"the product's database {why_away(error)}", away)
    except ObjectStoreUnavailableError as error:
        _refuse(f"S3 does not answer ({error.code})", away)


def _refuse(what: str, code: int = REFUSED) -> NoReturn:
    typer.echo(f"lethe: {what}", err=True)
    raise typer.Exit(code)


def _lines(fates: Sequence[ColumnFate]) -> list[str]:
    lines: list[str] = []
    table = ""
    for fate in fates:
        if fate.table != table:
            table = fate.table
            lines.append(f"{table}:")
        lines.append(f"  {fate.column:<24} {fate.fate}")
        lines += [f"    objects at {named}" for named in fate.objects]
    return lines


def _read_lines(read: Sequence[SetFate]) -> list[str]:
    lines: list[str] = []
    for fate in read:
        lines.append(f"what the handler reads by `{fate.option}: {fate.reference_set}`:")
        lines += [f"    objects at {named}" for named in fate.objects]
    return lines


def _folded(lines: Iterable[str]) -> list[str]:
    """Fold to the terminal; in a pipe a line stays one."""
    width = shutil.get_terminal_size().columns
    return [
        part
        for line in lines
        for part in wrap(
            line,
            width,
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
