"""Running effects when a transaction commits: an in-memory one, or one of SQLAlchemy's.

Code under test may be given a `MemoryTransaction`, or a real Session or Connection, e.g. on SQLite;
savepoints count in both. Anything else, a mock, counts as having committed at once.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

Effect = Callable[[], None]


class MemoryTransaction:
    """A transaction, to be entered by `with` or `async with`: an error rolls it back."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def on_commit(self, effect: Effect) -> None:
        """Do `effect` if and when this commits."""
        self._effects.append(effect)

    def commit(self) -> None:
        """Make everything since the last commit happen, in order."""
        effects, self._effects = self._effects, []
        for effect in effects:
            effect()

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._effects.clear()

    def in_transaction(self) -> bool:
        """Say whether anything waits for a commit."""
        return bool(self._effects)

    @contextmanager
    def begin_nested(self) -> Iterator[Self]:
        """Enter a savepoint: an error forgets what was done in it, and goes on to the caller."""
        before = len(self._effects)
        try:
            yield self
        except BaseException:
            # As a database does, whatever ended it.
            del self._effects[before:]
            raise

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit, or roll back after an error."""
        if error is None:
            self.commit()
        else:
            self.rollback()

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit, or roll back after an error."""
        self.__exit__(kind, error, trace)


class MemoryEngine:
    """Begins transactions of memory, where a consumer asks an engine for one."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[MemoryTransaction]:
        """Begin a transaction that ends with the block."""
        async with MemoryTransaction() as transaction:
            yield transaction


def on_commit(connection: Any, effect: Effect) -> None:
    """Do `effect` when the transaction that `connection` is in commits."""
    if isinstance(connection, scoped_session | async_scoped_session):
        connection = connection()
    if isinstance(connection, AsyncSession):
        connection = connection.sync_session
    elif isinstance(connection, AsyncConnection):
        connection = connection.sync_connection
    if isinstance(connection, MemoryTransaction):
        connection.on_commit(effect)
    elif isinstance(connection, Session):
        if connection not in _of_sessions:
            _of_sessions[connection] = _OfSession(connection)
        _of_sessions[connection].add(connection, effect)
    elif isinstance(connection, Connection):
        if connection not in _of_connections:
            _of_connections[connection] = _OfConnection(connection)
        _of_connections[connection].add(effect)
    else:
        effect()


class _OfSession:
    """What waits for the commit of a session, each with the (nested) transaction it was said in."""

    def __init__(self, session: Session) -> None:
        self._waiting: list[tuple[SessionTransaction | None, Effect]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_soft_rollback", self._rolled_back)

    def add(self, session: Session, effect: Effect) -> None:
        if not session.in_transaction():
            session.begin()
        inner = session.get_nested_transaction() or session.get_transaction()
        self._waiting.append((inner, effect))

    def _committed(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        waiting, self._waiting = self._waiting, []
        for _, effect in waiting:
            effect()

    def _rolled_back(self, _session: Session, ended: SessionTransaction) -> None:
        self._waiting = [one for one in self._waiting if not _within(one[0], ended)]


def _within(inner: SessionTransaction | None, ended: SessionTransaction) -> bool:
    while inner is not None:
        if inner is ended:
            return True
        inner = inner.parent
    return False


class _OfConnection:
    """What waits for the commit of a connection, and how much did at each open savepoint."""

    def __init__(self, connection: Connection) -> None:
        self._waiting: list[Effect] = []
        self._savepoints: list[int] = []
        event.listen(connection, "commit", self._committed)
        event.listen(connection, "rollback", self._rolled_back)
        event.listen(connection, "savepoint", self._began)
        event.listen(connection, "release_savepoint", self._released)
        event.listen(connection, "rollback_savepoint", self._undone)

    def add(self, effect: Effect) -> None:
        self._waiting.append(effect)

    def _committed(self, _connection: Connection) -> None:
        waiting, self._waiting = self._waiting, []
        self._savepoints.clear()
        for effect in waiting:
            effect()

    def _rolled_back(self, _connection: Connection) -> None:
        self._waiting.clear()
        self._savepoints.clear()

    def _began(self, _connection: Connection, _name: str | None) -> None:
        self._savepoints.append(len(self._waiting))

    def _released(self, _connection: Connection, _name: str, _context: None) -> None:
        self._leave()

    def _undone(self, _connection: Connection, _name: str, _context: None) -> None:
        del self._waiting[self._leave() :]

    def _leave(self) -> int:
        """Leave the innermost savepoint; one that is not known is older than all that waits."""
        return self._savepoints.pop() if self._savepoints else 0


_of_sessions: Final[WeakKeyDictionary[Session, _OfSession]] = WeakKeyDictionary()
_of_connections: Final[WeakKeyDictionary[Connection, _OfConnection]] = WeakKeyDictionary()
