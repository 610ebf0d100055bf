"""The relay's connections to one database, and which database that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg.adapt import Loader
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import URL, make_url

from lethe_outbox.errors import UnsafeDatabaseError

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

TRANSIENT: Final[tuple[type[Exception], ...]] = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    OSError,
)
"""What a database that is away, restarting, overloaded or a standby for now raises."""

_STATEMENT_SECONDS: Final = 30
_SETTINGS: Final = (
    "timezone=UTC",
    "datestyle=ISO",
    # Each of these ends a session that only waits, or meets others.
    "idle_session_timeout=0",
    "lock_timeout=0",
    r"default_transaction_isolation=read\ committed",
)
_GUARDS: Final = (
    # Plans made while the table was empty would read it whole at every poll.
    "set enable_seqscan = off",
    "set enable_bitmapscan = off",
    # One index range per bucket is all there is to do.
    "set jit = off",
    "set plan_cache_mode = force_generic_plan",
)
_IDENTITY: Final = (
    "select (select system_identifier from pg_control_system()),"
    " substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), pg_postmaster_start_time()"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which history a database is in: ids may be drawn again in another one.

    A server that was started again counts as another one, too: a restored copy of its files may
    have its system identifier and its timeline.
    """

    system: int
    timeline: str
    started: datetime


class Session:
    """Four connections to one database: for reading, acknowledging, leases and looks.

    Entering raises one of `TRANSIENT` when the database is away, UnsafeDatabaseError when the
    connections ended up at different databases.

    Attributes:
        pooled: a pooler stands between, and what serves one statement may serve another client's
            next: nothing is set or prepared, and no backend is known to be this session's.
    """

    def __init__(self, dsn: str, name: str) -> None:
        self._url = make_url(dsn)
        self._name = name
        self._open: list[Connection] = []
        self.pooled = False

    async def __aenter__(self) -> Self:
        """Open all connections."""
        try:
            self.reader = await self._connect("read")
            self.reader.adapters.register_loader("text", _text_as_bytes())
            self.acker = await self._connect("acknowledge")
            self.keeper = await self._connect("lease")
            self.watcher = await self._connect("look")
            identities = {await self._identify(one) for one in self._open}
        except BaseException:
            # Cancelled, too, it leaves open what it had opened.
            await self._close()
            raise
        if len(identities) != 1:
            await self._close()
            raise UnsafeDatabaseError("the connections of a relay reached different databases")
        self.identity = identities.pop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._close()

    def pids(self) -> list[int]:
        """Give the backends of these connections; none behind a pooler, where others share them."""
        return [] if self.pooled else [one.info.backend_pid for one in self._open]

    async def _connect(self, purpose: str) -> Connection:
        connection = await connect(self._url, f"{self._name}-{purpose}")
        self._open.append(connection)
        if await _is_pooled(connection):
            self.pooled = True
            connection.prepare_threshold = None
            return connection
        for guard in _GUARDS:
            await connection.execute(guard, prepare=False)
        connection.prepare_threshold = 0
        return connection

    async def _identify(self, connection: Connection) -> Identity:
        found = await (await connection.execute(_IDENTITY, prepare=False)).fetchone()
        if found is None:
            raise UnsafeDatabaseError("the database does not say which one it is")
        return Identity(int(found[0]), str(found[1]), found[2])

    async def _close(self) -> None:
        for connection in self._open:
            await connection.close()
        self._open.clear()


async def connect(url: URL, application_name: str) -> Connection:
    """Open one autocommitting connection whose placeholders are `$1`.

    Raises one of `TRANSIENT` when the database is away.
    """
    return await psycopg.AsyncConnection.connect(
        autocommit=True,
        cursor_factory=psycopg.AsyncRawCursor,
        **_arguments(url, application_name),
    )


async def _is_pooled(connection: Connection) -> bool:
    """Say whether somebody else than the server answered when the connection was opened."""
    serving = await (await connection.execute("select pg_backend_pid()", prepare=False)).fetchone()
    return serving is None or serving[0] != connection.info.backend_pid


def options_of(url: URL, statement_milliseconds: int) -> str:
    """Add settings of ours to those the URL has for the server; ours hold, those of a role not."""
    asked = url.query.get("options", ())
    ours = (f"statement_timeout={statement_milliseconds}", *_SETTINGS)
    return " ".join(
        [*((asked,) if isinstance(asked, str) else asked), *(f"-c {one}" for one in ours)]
    )


def _arguments(url: URL, application_name: str) -> Mapping[str, Any]:
    # As an engine does: several hosts, for one, are written in a way of SQLAlchemy's own.
    dialect = url.set(drivername="postgresql+psycopg").get_dialect()()
    _, asked = dialect.create_connect_args(url)
    return {
        "connect_timeout": 5,
        # A peer that vanished without a word is noticed in half a minute, not in two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        **asked,
        # Kafka is given topics and keys as the bytes that come.
        "client_encoding": "utf8",
        "application_name": application_name[:63],
        "options": options_of(url, _STATEMENT_SECONDS * 1000),
    }


def _text_as_bytes() -> type[Loader]:
    # Topics and keys go to Kafka as bytes; decoding them here to encode them there costs time.
    return ByteaBinaryLoader
