"""PostgreSQL as every service uses it: an engine with sane limits, and migrations that wait.

Every member keeps its tables in schema `lethe` and its Alembic position in a version table of its
own, so members that share a database do not know each other. A migrations folder holds `versions/`
only, whose files begin with their revision and are in the order of their names.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from psycopg.errors import InsufficientPrivilege
from pydantic import SecretStr
from sqlalchemy import Column, Connection, MetaData, NullPool, String, Table, inspect, select, text
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tenacity import RetryError, Retrying, retry_if_exception_type
from tenacity.stop import stop_after_delay

from lethe_runtime.database_away import why_away
from lethe_runtime.errors import LetheRuntimeError
from lethe_runtime.waiting import PAUSES, tell_away

SCHEMA: Final = "lethe"
"""Where every table of ours lives, beside whatever else the database holds."""

TRANSIENT: Final[tuple[type[Exception], ...]] = (
    OperationalError,
    InterfaceError,
    # A standby behind a failover's address takes no writes; a session that slept was ended.
    InternalError,
    PoolTimeoutError,
    OSError,
)
"""What a database that is away, restarting, overloaded or a standby makes SQLAlchemy raise."""

_CONNECT_SECONDS: Final = 5
_POOL_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 60
_MIGRATION_LOCK: Final = 0x6C65746865
"""The advisory lock under which one migration of a database runs at a time."""


class NotMigratedError(LetheRuntimeError):
    """The database is not at the revision this program needs; `lethe migrate` brings it there."""


class DatabaseAwayError(LetheRuntimeError):
    """The database does not answer, lets nobody in, or gives no right; a command gave it up."""


def create_engine(
    url: str | SecretStr,
    *,
    application_name: str,
    pool_size: int = 5,
    statement_seconds: float = 30,
) -> AsyncEngine:
    """Make an engine for `url`; it connects when first used.

    Args:
        url: an SQLAlchemy URL on psycopg.
        application_name: how the sessions are seen in `pg_stat_activity`.
        pool_size: connections kept; as many again may be opened in a burst.
        statement_seconds: no statement runs longer; 0 sets no limit.
    """
    return create_async_engine(
        _plain(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=_POOL_SECONDS,
        pool_pre_ping=True,
        pool_recycle=1800,
        hide_parameters=True,
        connect_args=_connect_args(application_name, statement_seconds),
    )


@asynccontextmanager
async def disposing(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """Close the engine's connections at the end."""
    try:
        yield engine
    finally:
        await engine.dispose()


async def ping(engine: AsyncEngine) -> None:
    """Ask the database whether it is there; raises one of `TRANSIENT` when it is not."""
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))


async def check_migrated(engine: AsyncEngine, migrations: Path, version_table: str) -> None:
    """Say whether the database is where this program's migrations end.

    Raises:
        NotMigratedError: it is not; treat it as transient to wait for `lethe migrate`.
    """
    async with engine.connect() as connection:
        at = await connection.run_sync(_revision, version_table)
    wanted = _head(migrations)
    if at != wanted:
        raise NotMigratedError(f"the database is at {at or 'nothing'}, this program needs {wanted}")


class DatabaseProbe:
    """Asks whether the database is there and, until it once was, whether it is migrated.

    Args:
        engine: the service's engine.
        migrations: the service's migrations folder.
        version_table: its Alembic version table.
    """

    TRANSIENT: Final = (*TRANSIENT, NotMigratedError)
    """What `ask` raises while there is something to wait for."""

    def __init__(self, engine: AsyncEngine, migrations: Path, version_table: str) -> None:
        self._engine = engine
        self._migrations = migrations
        self._version_table = version_table
        self.migrated = False

    async def ask(self) -> None:
        """Raise one of `TRANSIENT` unless the database can be worked with."""
        if self.migrated:
            await ping(self._engine)
            return
        await check_migrated(self._engine, self._migrations, self._version_table)
        self.migrated = True


def migrate(
    url: str | SecretStr, migrations: Path, version_table: str, *, give_up_seconds: float = 300
) -> str:
    """Bring the database to the newest revision of `migrations`, in one transaction.

    It waits while the database is away, and lets one migration of a database run at a time. Returns
    the revision reached.

    Raises:
        DatabaseAwayError: the database did not answer for `give_up_seconds`, went away meanwhile,
            or does not let its role do this.
    """
    try:
        with connected(url, "lethe-migrate", give_up_seconds=give_up_seconds) as connection:
            return _upgrade(connection, migrations, version_table)
    except DBAPIError as error:
        if not (isinstance(error, TRANSIENT) or _lacks_rights(error)):
            raise
        raise DatabaseAwayError(f"the database {why_away(error)}; it is safe to repeat") from error


@contextmanager
def in_words(database: str, lacks: str) -> Iterator[None]:
    """Turn what a command's statements raise where the database is not as needed into a sentence.

    Args:
        database: what it is called at the beginning of that sentence.
        lacks: the sentence for one without the tables of this program.

    Raises:
        DatabaseAwayError: it is away, or does not let the role do this.
        NotMigratedError: it lacks tables or columns.
    """
    try:
        yield
    except TRANSIENT as error:
        raise DatabaseAwayError(f"{database} {why_away(error)}") from None
    except ProgrammingError as error:
        if _lacks_rights(error):
            raise DatabaseAwayError(f"{database} {why_away(error)}") from None
        raise NotMigratedError(lacks) from None


@contextmanager
def connected(
    url: str | SecretStr, application_name: str, *, give_up_seconds: float = 10
) -> Iterator[Connection]:
    """Give a command a synchronous connection in one transaction, committed at the end.

    Raises:
        DatabaseAwayError: the database did not answer for `give_up_seconds`.
    """
    engine = create_sync_engine(
        _plain(url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=_connect_args(application_name, 0),
    )
    retrying = Retrying(
        retry=retry_if_exception_type(TRANSIENT),
        stop=stop_after_delay(give_up_seconds),
        wait=PAUSES,
        before_sleep=partial(tell_away, "database"),
    )
    try:
        # Only reaching the database is repeated: what a command does there may not be done twice.
        connection = retrying(engine.connect)
    except RetryError as gave_up:
        why = why_away(gave_up.last_attempt.exception() or gave_up)
        raise DatabaseAwayError(
            f"waited for {give_up_seconds:g} s in vain: the database {why}"
        ) from None
    with connection, connection.begin():
        yield connection


def _lacks_rights(error: DBAPIError) -> bool:
    return isinstance(error.orig, InsufficientPrivilege)


def _plain(url: str | SecretStr) -> str:
    return url.get_secret_value() if isinstance(url, SecretStr) else url


def _connect_args(application_name: str, statement_seconds: float) -> dict[str, object]:
    return {
        "application_name": application_name,
        "connect_timeout": _CONNECT_SECONDS,
        # A peer that vanished without a word is noticed in half a minute, not in two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": (
            f"-c statement_timeout={int(statement_seconds * 1000)} -c timezone=UTC "
            # A process that was frozen holds its locks no longer, and whoever took over goes on.
            f"-c idle_in_transaction_session_timeout={_IDLE_SECONDS * 1000}"
        ),
    }


def _head(migrations: Path) -> str:
    """Give the newest revision; a service does not load Alembic, of 12 MB, to learn it."""
    names = (path.stem for path in (migrations / "versions").glob("[0-9]*.py"))
    return max(name.partition("_")[0] for name in names)


def _revision(connection: Connection, version_table: str) -> str | None:
    if not inspect(connection).has_table(version_table, schema=SCHEMA):
        return None
    table = Table(version_table, MetaData(), Column("version_num", String), schema=SCHEMA)
    return connection.execute(select(table.c.version_num)).scalar_one_or_none()


def _upgrade(connection: Connection, migrations: Path, version_table: str) -> str:
    from alembic.config import Config  # noqa: PLC0415 - of no use to a process that runs
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - likewise
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    script = ScriptDirectory(str(migrations))

    def to_head(revision: Any, _context: Any) -> list[Any]:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - as Alembic's cookbook does

    connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    connection.execute(text(f"create schema if not exists {SCHEMA}"))
    with EnvironmentContext(config, script, fn=to_head) as environment:
        environment.configure(
            connection=connection, version_table=version_table, version_table_schema=SCHEMA
        )
        environment.run_migrations()
    return script.get_current_head() or ""
