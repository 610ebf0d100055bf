"""Appending to the outbox inside the caller's transaction.

The rows are committed or rolled back with the caller's own writes; nothing here commits. Writers of
one key are serialised by an advisory lock that is held to the end of the transaction, so ids of a
key grow in commit order. Who appends messages of a few keys locks each of them (and their buckets,
shared); who appends messages of many locks their buckets. One call takes its locks in ascending
order and cannot deadlock with another; transactions that call several times may, and PostgreSQL
then ends one of them.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Dialect, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from lethe_outbox.errors import ConnectionKindError, TransactionError, UnsupportedDatabaseError
from lethe_outbox.message import Message, check_messages, key_hash, pack_headers
from lethe_outbox.schema import DEFAULT_SCHEMA, OutboxTables
from lethe_outbox.tracing import current_context
from lethe_outbox.writing import Locks, NewRow, Writer

DRIVERS: Final = ("psycopg", "psycopg2", "asyncpg")
"""SQLAlchemy's drivers for PostgreSQL with which `append` works."""

SyncTransaction = Connection | Session | scoped_session[Session]
AsyncTransaction = AsyncConnection | AsyncSession | async_scoped_session[AsyncSession]


class Outbox(OutboxTables):
    """An outbox: its tables, and appending to it.

    Args:
        schema: where the tables live; None for the connection's search path.
        metadata: where they are registered; None for one of their own.
        key_lock: serialise writers of a key. Off, order per key holds only where the application
            already serialises them.
    """

    def __init__(
        self,
        schema: str | None = DEFAULT_SCHEMA,
        metadata: MetaData | None = None,
        *,
        key_lock: bool = True,
    ) -> None:
        super().__init__(schema, metadata)
        self._key_lock = key_lock
        self._writers: Final[dict[str, Writer]] = {}

    def append(self, connection: SyncTransaction, *messages: Message) -> None:
        """Write `messages` in the transaction of `connection`, in their order; never commits.

        However many they are, it is one statement (more only beyond 20,000 rows or 64 MiB). What a
        Session has pending is flushed first, as before a query, unless its autoflush is off.

        Raises:
            TransactionError: the connection commits every statement by itself (AUTOCOMMIT).
            UnsupportedDatabaseError: it is not PostgreSQL by one of `DRIVERS`.
            ConnectionKindError: it is not one of the kinds named above, e.g. an Engine, or an async
                one.
            MessageError: something else than messages was given, e.g. a list of them.
        """
        target = connection() if isinstance(connection, scoped_session) else connection
        if isinstance(target, Session):
            if not messages:
                return
            if target.autoflush:
                target.flush()
            target = target.connection(bind_arguments={"clause": self.outbox})
        elif not isinstance(target, Connection):
            raise ConnectionKindError(
                "append takes a Connection or a Session, append_async their async twins; "
                f"this is {type(target).__name__}"
            )
        self._write(target, messages)

    async def append_async(self, connection: AsyncTransaction, *messages: Message) -> None:
        """Write `messages` in the transaction of `connection`, in their order; never commits.

        Everything `append` says holds here.

        Raises:
            TransactionError, UnsupportedDatabaseError, ConnectionKindError, MessageError: as
                `append`.
        """
        target = connection() if isinstance(connection, async_scoped_session) else connection
        if not isinstance(target, AsyncConnection | AsyncSession):
            raise ConnectionKindError(
                "append_async takes an AsyncConnection or an AsyncSession, append their sync "
                f"twins; this is {type(target).__name__}"
            )
        await target.run_sync(self.append, *messages)

    def _write(self, connection: Connection, messages: Sequence[Message]) -> None:
        writer = self._writers.get(connection.dialect.driver)
        if writer is None:
            writer = self._writer_for(connection.dialect)
        # The driver's own word: an isolation level may have been set on the engine, too.
        if getattr(connection.connection.dbapi_connection, "autocommit", False):
            raise TransactionError(
                "the connection is in AUTOCOMMIT: what is appended would be published although "
                "the work it belongs to fails; append in a transaction"
            )
        if not messages:
            return
        check_messages(messages)
        context = current_context()
        rows = [_row(message, context) for message in messages]
        locks = Locks.of({key_hash(one.key) for one in messages}) if self._key_lock else None
        for statement, parameters in writer.statements(rows, locks):
            connection.exec_driver_sql(statement, parameters)

    def _writer_for(self, dialect: Dialect) -> Writer:
        if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
            raise UnsupportedDatabaseError(
                f"an outbox needs PostgreSQL by {' or '.join(DRIVERS)}; "
                f"this is {dialect.name} by {dialect.driver}"
            )
        return self._writers.setdefault(dialect.driver, Writer(self.schema, dialect.driver))


def _row(message: Message, context: Sequence[tuple[str, bytes]]) -> NewRow:
    return (
        message.event_id,
        message.topic,
        message.key,
        message.bucket,
        message.payload,
        pack_headers(message, context),
    )
