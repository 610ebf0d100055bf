"""An outbox in memory, to be handed to code that appends."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from lethe_outbox.errors import ConnectionKindError
from lethe_outbox.message import Message, check_messages, pack_headers, unpack_headers
from lethe_outbox.outbox import Outbox
from lethe_outbox.schema import Status
from lethe_outbox.testing.transactions import on_commit
from lethe_outbox.tracing import TraceHeaders, current_context

_NEVER: Final = (Engine, AsyncEngine, sessionmaker, async_sessionmaker, type(None))
_ASYNC: Final = (AsyncConnection, AsyncSession)
_SYNC: Final = (Connection, Session)


@dataclass(slots=True)
class MemoryRow:
    """A row of the outbox: what was appended and committed, and what became of it.

    Attributes:
        reason: why it was refused.
        held: whether later rows of its key wait for it.
    """

    id: int
    message: Message
    headers: tuple[tuple[str, bytes], ...]
    status: Status = Status.PENDING
    reason: str | None = None
    held: bool = False


class MemoryOutbox(Outbox):
    """Stands in for an `Outbox`; `append` takes any transaction that `transactions` knows.

    Attributes:
        rows: what is committed, in the order of appending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: Final[list[MemoryRow]] = []
        self._ids = itertools.count(1)

    @property
    def messages(self) -> list[Message]:
        """The messages that are committed, published or not."""
        return [row.message for row in self.rows]

    def append(self, connection: Any, *messages: Message) -> None:
        """Keep `messages` when the transaction of `connection` commits.

        Raises:
            ConnectionKindError: it is an engine or sessionmaker, None, or async.
            MessageError: something else than messages was given, e.g. a list of them.
        """
        if isinstance(connection, (*_NEVER, *_ASYNC)):
            raise ConnectionKindError(f"append takes no {type(connection).__name__}")
        self._append(connection, messages)

    async def append_async(self, connection: Any, *messages: Message) -> None:
        """Keep `messages` when the transaction of `connection` commits.

        Raises:
            ConnectionKindError: it is an engine or sessionmaker, None, or not async.
            MessageError: something else than messages was given, e.g. a list of them.
        """
        if isinstance(connection, (*_NEVER, *_SYNC)):
            raise ConnectionKindError(f"append_async takes no {type(connection).__name__}")
        self._append(connection, messages)

    def _append(self, connection: Any, messages: Sequence[Message]) -> None:
        check_messages(messages)
        context = current_context()
        for message in messages:
            row = MemoryRow(next(self._ids), message, _headers(message, context))
            on_commit(connection, lambda row=row: self._keep(row))  # type: ignore[misc] # mypy cannot infer a default's type here

    def _keep(self, row: MemoryRow) -> None:
        self.rows.append(row)
        self.rows.sort(key=lambda one: one.id)


def _headers(message: Message, context: TraceHeaders) -> tuple[tuple[str, bytes], ...]:
    return tuple(unpack_headers(pack_headers(message, context)))
