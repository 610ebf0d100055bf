"""How outboxes and their rows are shown: documents for programs, tables for people."""

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from rich.table import Table
from rich.text import Text

from lethe_outbox import Figures, OutboxRow, OutboxStatus, RefusedRow, WholeRow
from lethe_outbox.message import BUCKETS
from lethe_outbox.schema import Status
from lethe_relay.outbox_cli.asking import Name

Stand = tuple[OutboxStatus, Figures, list[RefusedRow]]
_R = TypeVar("_R")
_Columns = Mapping[str, Callable[[_R], str | Text]]
_WHOLE_TABLE: Final = 150
"""Characters that a table with all of its columns takes."""
_LEFT_OUT: Final = frozenset({"event", "bytes", "sent"})


def status_document(stand: OutboxStatus, size: Figures, rows: list[RefusedRow]) -> dict[str, Any]:
    """Describe how an outbox stands."""
    return {
        **asdict(stand),
        "oldest_pending": _iso(stand.oldest_pending),
        "oldest_pending_seconds": round(stand.oldest_pending_seconds, 3),
        "taken_at": _iso(stand.taken_at),
        "size_bytes": size.size_bytes,
        "rows_estimated": size.rows,
        "dead_tuples_estimated": size.dead_tuples,
        "default_rows": size.default_rows,
        "overdue_partitions": size.overdue_partitions,
        "janitor_at": _iso(size.janitor_at),
        "writers": [
            {"transaction": writer, "open_since": _iso(since)}
            for writer, since in size.writers.items()
        ],
        "refused": [
            {
                **asdict(row),
                "event_id": str(row.event_id),
                "status": row.status.name,
                "died_at": _iso(row.died_at),
            }
            for row in rows
        ],
    }


def purge_document(total: int, removed: Iterable[UUID], *, confirm: bool) -> dict[str, Any]:
    """Describe what was removed, or would be."""
    return {
        "confirmed": confirm,
        "would_purge": 0 if confirm else total,
        "purged": [str(event_id) for event_id in removed],
    }


def row_document(name: Name, row: OutboxRow) -> dict[str, Any]:
    """Describe a row without what it carries."""
    return {
        "outbox": name,
        **asdict(row),
        "event_id": str(row.event_id),
        "status": row.status.name,
        "created_at": _iso(row.created_at),
        "sent_at": _iso(row.sent_at),
    }


def whole_document(name: Name, found: WholeRow) -> dict[str, Any]:
    """Describe a row with its headers, and its payload if that was asked for."""
    document = {
        **row_document(name, found.row),
        "key": found.key,
        "bucket": found.bucket,
        "dlt_attempts": found.dlt_attempts,
        "died_at": _iso(found.died_at),
        "headers": None
        if found.headers is None
        else [[name, value.decode(errors="replace")] for name, value in found.headers],
    }
    if found.payload is not None:
        document["payload_base64"] = base64.b64encode(found.payload).decode()
    return document


def overview(stands: Mapping[Name, Stand]) -> Table:
    """Show how outboxes stand, one beside the other."""
    table = Table("")
    for outbox in stands:
        table.add_column(outbox, overflow="fold")
    properties: dict[str, Callable[[OutboxStatus, Figures], str]] = {
        "pending": lambda stand, _: str(stand.pending),
        "oldest pending": lambda stand, _: (
            f"{stand.oldest_pending_seconds:.1f} s" if stand.oldest_pending else "-"
        ),
        "dead-lettered": lambda stand, _: str(stand.dead_lettered),
        "DLT_FAILED": lambda stand, _: str(stand.dlt_failed),
        "relays": lambda stand, _: str(stand.relays),
        "buckets owned": lambda stand, _: f"{stand.owned_buckets}/{BUCKETS}",
        "size": lambda _, size: f"{size.size_bytes / 2**20:.1f} MiB",
        "longest writer": lambda _, size: _longest(size),
        "janitor ran": lambda _, size: _moment(size.janitor_at),
    }
    for name, told in properties.items():
        table.add_row(name, *(told(stand, size) for stand, size, _ in stands.values()))
    return table


def refused_table(name: Name, rows: Iterable[RefusedRow], width: int) -> Table:
    """Show the refused rows of an outbox on a terminal of this width."""
    columns: _Columns[RefusedRow] = {
        **_OF_ANY,
        "reason": lambda row: _plain(row.reason),
        "key": lambda row: _held(row.status, held=row.held),
        "refused at": lambda row: _moment(row.died_at),
    }
    return _table(f"refused: {name}", columns, rows, width)


def rows_table(name: Name, rows: Iterable[OutboxRow], width: int) -> Table:
    """Show rows of an outbox on a terminal of this width."""
    columns: _Columns[OutboxRow] = {
        **_OF_ANY,
        "reason": lambda row: _plain(row.reason or "-"),
        "key": lambda row: _held(row.status, held=row.held),
        "bytes": lambda row: str(row.bytes),
        "written": lambda row: _moment(row.created_at),
        "sent": lambda row: _moment(row.sent_at),
    }
    return _table(f"rows: {name}", columns, rows, width)


def _table(title: str, columns: "_Columns[_R]", rows: Iterable[_R], width: int) -> Table:
    """Leave out what does not fit: `lethe outbox show` has it, by the id, which is never cut."""
    if width < _WHOLE_TABLE:
        columns = {name: told for name, told in columns.items() if name not in _LEFT_OUT}
    table = Table(title=title)
    for name in columns:
        table.add_column(name, no_wrap=name == "id", overflow="fold")
    for row in rows:
        table.add_row(*(told(row) for told in columns.values()))
    return table


def whole_table(name: Name, found: WholeRow) -> Table:
    """Show one row, property by property."""
    table = Table(title=f"row {found.row.id}")
    table.add_column("property", overflow="fold")
    table.add_column("value", overflow="fold")
    document = whole_document(name, found)
    headers = document.pop("headers")
    document.pop("payload_base64", None)
    for property_, value in document.items():
        table.add_row(property_, _plain("-" if value is None else str(value)))
    if headers is None:
        table.add_row("headers", "not readable")
    for header, value in headers or []:
        table.add_row(_plain(f"header {header}"), _plain(value))
    if found.payload is not None:
        table.add_row("payload", _plain(found.payload.decode(errors="backslashreplace")))
    return table


def _plain(value: str) -> Text:
    """Keep what came from somewhere else from being read as markup or moving the cursor."""
    return Text("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in value))


def _held(status: Status, *, held: bool) -> str:
    if status is Status.PENDING:
        return "waits" if held else "-"
    if status is Status.SENT:
        return "-"
    return "held back" if held else "goes on"


def _longest(size: Figures) -> str:
    known = [since for since in size.writers.values() if since is not None]
    if not known:
        return "unknown" if size.writers else "-"
    return f"{max(0.0, (size.taken_at - min(known)).total_seconds()):.1f} s"


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


_OF_ANY: Final[_Columns[RefusedRow | OutboxRow]] = {
    "id": lambda row: str(row.id),
    "event": lambda row: str(row.event_id),
    "topic": lambda row: _plain(row.topic),
    "status": lambda row: row.status.name,
}
"""What is told of a row, whether it was refused or not."""
