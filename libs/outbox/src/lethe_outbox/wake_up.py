"""Telling relays after a commit that there is something to publish: a hint, never a promise.

A relay polls, so nothing depends on a hint; it only spares the pause between two polls. It is sent
after the business transaction, on a connection of its own, by a thread of its own: PostgreSQL takes
a lock of the whole database at the commit of a transaction that notifies, and no writer shall wait
for it.
"""

import asyncio
import logging
import threading
from typing import Any, Final, Self

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.schema import DEFAULT_SCHEMA
from lethe_outbox.wake_up_storage import NOTIFY, channel, insertion

_WROTE: Final = "lethe_outbox_wrote"
_COMMITTED: Final = "lethe_outbox_committed"
_CONNECT_SECONDS: Final = 5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_log = logging.getLogger(__name__)


class WakeUp:
    """Sends a hint soon after every commit of `engine` that wrote the outbox.

    The first commit of a while is told at once, the following ones together after `seconds`: at
    most `1 / seconds` hints a second leave a process, however many transactions it commits.
    Whatever goes wrong with a hint is logged once and stays here.

    Args:
        engine: whose commits are told; sync or async.
        schema: of the outbox.
        seconds: shortest time between two hints.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine,
        schema: str | None = DEFAULT_SCHEMA,
        *,
        seconds: float = 0.05,
    ) -> None:
        self._engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
        self._schema = schema
        self._seconds = seconds
        self._mark = insertion(schema)
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._failures = 0
        self.sent = 0
        """How many hints have left."""
        for name, listener in self._listeners():
            event.listen(self._engine, name, listener)

    def __enter__(self) -> Self:
        """Nothing to do: the thread begins with the first hint."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Nothing to do: the thread begins with the first hint."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close, without standing in the loop's way."""
        await asyncio.to_thread(self.close)

    def hint(self) -> None:
        """Tell the relays; returns at once and never fails."""
        if self._thread is None:
            self._start()
        self._wanted.set()

    def close(self) -> None:
        """Listen to the engine no longer and end the thread; a hint on its way may be lost."""
        for name, listener in self._listeners():
            if event.contains(self._engine, name, listener):
                event.remove(self._engine, name, listener)
        self._closing.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(2 * _CONNECT_SECONDS)

    def _listeners(self) -> list[tuple[str, Any]]:
        return [
            ("after_cursor_execute", self._executed),
            ("commit", self._committing),
            ("rollback", self._rolled_back),
            # SQLAlchemy tells of a commit before it happens; these come right after it.
            ("begin", self._after),
            ("checkin", self._returned),
        ]

    def _executed(self, connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if self._mark in statement:
            _info(connection)[_WROTE] = True

    def _committing(self, connection: Any) -> None:
        info = _info(connection)
        if info.pop(_WROTE, False):
            info[_COMMITTED] = True

    def _rolled_back(self, connection: Any) -> None:
        _info(connection).pop(_WROTE, None)

    def _after(self, connection: Any) -> None:
        if _info(connection).pop(_COMMITTED, False):
            self.hint()

    def _returned(self, _connection: Any, record: Any) -> None:
        if record.info.pop(_COMMITTED, False):
            self.hint()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                name = f"outbox-wake-up-{self._schema}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._closing.is_set():
                break
            # Before the hint leaves: a commit after this line asks for another one.
            self._wanted.clear()
            self._closing.wait(self._send())
        self._disconnect()

    def _send(self) -> float:
        """Send one hint; gives the seconds until the next one may go."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.execute(NOTIFY, (channel(self._schema), ""))
        except (psycopg.Error, OSError) as error:
            self._disconnect()
            self._failures += 1
            if self._failures == 1:
                _log.warning(
                    "wake-up hints cannot be sent (%s); relays find rows by polling",
                    type(error).__name__,
                )
            else:
                # A connection that was cut is replaced at once, a server that is away later.
                return min(_LONGEST_PAUSE_SECONDS, 0.25 * 2.0 ** min(self._failures, 10))
            self._wanted.set()
        else:
            self.sent += 1
            self._failures = 0
        return self._seconds

    def _connect(self) -> psycopg.Connection[Any]:
        url = self._engine.url
        return psycopg.connect(
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
            **{
                "connect_timeout": _CONNECT_SECONDS,
                **url.translate_connect_args(username="user", database="dbname"),
                # Other drivers call their options by other names.
                **(url.query if "psycopg" in url.drivername else {}),
                # No more than that: a pooler refuses options at the start of a connection.
                "application_name": "outbox-wake-up",
            },
        )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _info(connection: Any) -> dict[Any, Any]:
    """Give the notes on a connection, which SQLAlchemy refuses for one that was lost."""
    found: dict[Any, Any] = {} if connection.invalidated or connection.closed else connection.info
    return found
