"""Appending: the caller's transaction in every form it comes in, one round trip, order per key."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session
from sqlalchemy.orm import sessionmaker as make_sessionmaker

from lethe_outbox import (
    ConnectionKindError,
    Message,
    Outbox,
    TransactionError,
    UnsupportedDatabaseError,
)
from lethe_outbox.message import bucket_of, unpack_headers
from tests.support.outbox_world import lay
from tests.support.waiting import until_sync

OUTBOX = Outbox()
ONE = Message("orders", "customer-7", b"\0payload", (("kind", b"\xff"),))
SYNC_DRIVERS = ("psycopg", "psycopg2")
ASYNC_DRIVERS = ("psycopg", "asyncpg")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def laid(database_url: str) -> str:
    lay(database_url)
    engine = create_engine(database_url)
    Base.metadata.create_all(engine)
    engine.dispose()
    return database_url


@pytest.fixture
def engine(laid: str) -> Iterator[Engine]:
    found = create_engine(laid)
    yield found
    found.dispose()


@pytest.fixture
async def async_engine(laid: str) -> AsyncIterator[AsyncEngine]:
    found = create_async_engine(laid)
    yield found
    await found.dispose()


def by(driver: str, url: str) -> str:
    return make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(False)


def rows(connection: Connection) -> list[Any]:
    table = OUTBOX.outbox
    columns = (table.c.event_id, table.c.topic, table.c.key, table.c.bucket, table.c.payload)
    return list(connection.execute(select(*columns, table.c.headers).order_by(table.c.id)))


def kept(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [row.key for row in rows(connection)]


def messages(count: int, *, keys: int = 7) -> list[Message]:
    return [Message("orders", f"key-{n % keys}", b"%d" % n) for n in range(count)]


def assert_kept_as_given(connection: Connection, given: list[Message]) -> None:
    found = rows(connection)
    assert [(row.event_id, row.topic, row.key, row.payload) for row in found] == [
        (one.event_id, one.topic, one.key, one.payload) for one in given
    ]
    assert [row.bucket for row in found] == [bucket_of(one.key) for one in given]
    for row, one in zip(found, given, strict=True):
        assert unpack_headers(row.headers) == [
            ("ce_id", str(one.event_id).encode()),
            *one.headers,
        ]


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_a_row_says_what_the_message_says(laid: str, driver: str) -> None:
    engine = create_engine(by(driver, laid))
    for outbox in (Outbox(), Outbox(key_lock=False)):
        for count in (1, 2, 10, 40):
            given = [ONE, *messages(count - 1)]
            with engine.connect() as connection:
                outbox.append(connection, *given)
                assert_kept_as_given(connection, given)
    engine.dispose()


@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
async def test_a_row_says_what_the_message_says_by_async_drivers(laid: str, driver: str) -> None:
    engine = create_async_engine(by(driver, laid))
    for count in (1, 2, 40):
        given = [ONE, *messages(count - 1)]
        async with engine.connect() as connection:
            await OUTBOX.append_async(connection, *given)
            await connection.run_sync(assert_kept_as_given, given)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(TransactionError):
            await OUTBOX.append_async(connection, ONE)
    await engine.dispose()


def test_a_session_commits_it_with_its_objects_or_rolls_both_back(engine: Engine) -> None:
    sessions = make_sessionmaker(engine)
    with sessions() as session, session.begin():
        session.add(Order(id=1))
        OUTBOX.append(session, ONE)
    with sessions() as session:
        session.add(Order(id=2))
        OUTBOX.append(session, ONE)
        session.rollback()
    with sessions.begin() as session:
        assert session.scalars(select(Order.id)).all() == [1]
    assert kept(engine) == ["customer-7"]


def test_a_session_flushes_what_is_pending_before_it_takes_locks(engine: Engine) -> None:
    with Session(engine) as session:
        order = Order()
        session.add(order)
        OUTBOX.append(session, ONE)
        assert order.id is not None
        with session.no_autoflush:
            later = Order()
            session.add(later)
            OUTBOX.append(session, ONE)
            assert later.id is None
        session.commit()
    assert len(kept(engine)) == 2


def test_a_scoped_session_is_the_session_of_its_scope(engine: Engine) -> None:
    sessions = scoped_session(make_sessionmaker(engine))
    OUTBOX.append(sessions, ONE)
    sessions.commit()
    sessions.remove()
    assert kept(engine) == ["customer-7"]


def test_a_session_bound_by_table_finds_the_outboxs_database(engine: Engine) -> None:
    elsewhere = create_engine("sqlite://")
    with Session(binds={Order: elsewhere, OUTBOX.outbox: engine}) as session:
        OUTBOX.append(session, ONE)
        session.commit()
    assert kept(engine) == ["customer-7"]


async def test_async_sessions_of_every_kind(async_engine: AsyncEngine, engine: Engine) -> None:
    sessions = async_sessionmaker(async_engine)
    async with sessions.begin() as session:
        session.add(Order(id=1))
        await OUTBOX.append_async(session, ONE)
    async with AsyncSession(async_engine) as session:
        await OUTBOX.append_async(session, ONE)
        await session.rollback()
    scoped = async_scoped_session(sessions, scopefunc=asyncio.current_task)
    await OUTBOX.append_async(scoped, Message("orders", "scoped", b""))
    await scoped.commit()
    await scoped.remove()
    assert kept(engine) == ["customer-7", "scoped"]


def test_a_savepoint_takes_its_messages_with_it(engine: Engine) -> None:
    with engine.begin() as connection:
        OUTBOX.append(connection, Message("orders", "before", b""))
        savepoint = connection.begin_nested()
        OUTBOX.append(connection, Message("orders", "inside", b""))
        savepoint.rollback()
        OUTBOX.append(connection, Message("orders", "after", b""))
    with Session(engine) as session, session.begin(), session.begin_nested():
        OUTBOX.append(session, Message("orders", "released", b""))
    assert kept(engine) == ["before", "after", "released"]


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_autocommit_is_refused_wherever_it_was_set(laid: str, driver: str) -> None:
    plain = create_engine(by(driver, laid))
    always = create_engine(by(driver, laid), isolation_level="AUTOCOMMIT")
    with plain.connect() as connection, pytest.raises(TransactionError):
        OUTBOX.append(connection.execution_options(isolation_level="AUTOCOMMIT"), ONE)
    with always.connect() as connection, pytest.raises(TransactionError):
        OUTBOX.append(connection, ONE)
    with Session(always) as session, pytest.raises(TransactionError):
        OUTBOX.append(session, ONE)
    assert kept(plain) == []
    plain.dispose()
    always.dispose()


async def test_what_is_no_connection_of_the_right_kind_is_refused(
    engine: Engine, async_engine: AsyncEngine
) -> None:
    wrong: Any
    for wrong in (engine, make_sessionmaker(engine), AsyncSession(async_engine), None):
        with pytest.raises(ConnectionKindError):
            OUTBOX.append(wrong, ONE)
    for wrong in (async_engine, async_sessionmaker(async_engine), Session(engine)):
        with pytest.raises(ConnectionKindError):
            await OUTBOX.append_async(wrong, ONE)
    refused = pytest.raises(UnsupportedDatabaseError, match="sqlite")
    with create_engine("sqlite://").connect() as elsewhere, refused:
        OUTBOX.append(elsewhere, ONE)


@pytest.mark.parametrize("kind", ["connection", "session"])
def test_nothing_to_append_is_nothing(engine: Engine, kind: str) -> None:
    with counted(engine) as statements:
        if kind == "connection":
            with engine.connect() as connection:
                OUTBOX.append(connection)
        else:
            with Session(engine) as session:
                OUTBOX.append(session)
    assert statements == []


class counted:  # noqa: N801 - reads as a function
    """The statements an engine sends meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: list[str] = []

    def __enter__(self) -> list[str]:
        event.listen(self._engine, "before_cursor_execute", self._note)
        return self._found

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._found.append(statement)


def test_any_number_of_messages_is_one_statement(engine: Engine) -> None:
    table = OUTBOX.outbox
    for outbox in (Outbox(), Outbox(key_lock=False)):
        for count, keys in ((1, 1), (10, 1), (10, 10), (100, 16), (10_000, 17), (10_000, 5000)):
            given = messages(count, keys=keys)
            with engine.connect() as connection, counted(engine) as statements:
                outbox.append(connection, *given)
                assert len(statements) == 1
                found = connection.scalars(select(table.c.event_id).order_by(table.c.id)).all()
                assert found == [one.event_id for one in given]


def test_what_is_too_much_for_one_message_of_the_protocol_goes_in_parts(engine: Engine) -> None:
    given = [Message("orders", f"key-{n}", b"x" * 17_000_000) for n in range(4)]
    with engine.begin() as connection, counted(engine) as statements:
        OUTBOX.append(connection, *given)
        assert len(statements) == 2
        assert [row.key for row in rows(connection)] == [one.key for one in given]


LOCKS = text(
    "SELECT objid::int AS number, mode FROM pg_locks"
    " WHERE locktype = 'advisory' AND granted AND pid = :pid ORDER BY 1"
)


def test_writers_of_one_key_wait_for_each_other_and_others_do_not(engine: Engine) -> None:
    bulk = [Message("orders", f"other-{n}", b"") for n in range(20)]
    with engine.begin() as first, engine.connect() as second:
        OUTBOX.append(first, ONE)

        def waits(*given: Message, outbox: Outbox = OUTBOX) -> bool:
            second.execute(text("SET LOCAL lock_timeout = '50ms'"))
            try:
                outbox.append(second, *given)
            except OperationalError as error:
                return isinstance(error.orig, LockNotAvailable)
            finally:
                second.rollback()
            return False

        assert waits(ONE)
        assert waits(Message("other.topic", ONE.key, b""), *bulk[:3])
        assert waits(*bulk, ONE)
        assert not waits(*bulk[:3])
        assert not waits(ONE, outbox=Outbox(key_lock=False))
        assert not waits(Message("orders", next(_sharing_the_bucket(ONE.key)), b""))


def _sharing_the_bucket(key: str) -> Iterator[str]:
    names: Callable[[int], str] = "other-{}".format
    return (name for name in map(names, range(10_000)) if bucket_of(name) == bucket_of(key))


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
@pytest.mark.parametrize("count", [1, 5, 40])
def test_no_id_is_drawn_before_the_lock_is_held(laid: str, count: int, driver: str) -> None:
    given = messages(count, keys=count)
    sequence = text("SELECT last_value, is_called FROM lethe.outbox_id_seq")
    engine = create_engine(by(driver, laid))
    with engine.connect() as holder, engine.connect() as writer, engine.connect() as watcher:
        OUTBOX.append(holder, given[-1])
        before = watcher.execute(sequence).one()
        pid = writer.scalar(text("SELECT pg_backend_pid()"))
        thread = threading.Thread(target=OUTBOX.append, args=(writer, *given))
        thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE pid = :pid AND NOT granted")
        until_sync(lambda: watcher.scalar(waiting, {"pid": pid}) == 1)
        assert watcher.execute(sequence).one() == before
        holder.rollback()
        thread.join()
        assert watcher.execute(sequence).one().last_value == before.last_value + count
    engine.dispose()


def test_many_keys_lock_their_buckets_in_ascending_order(engine: Engine) -> None:
    given = messages(3000, keys=40)
    buckets = sorted({bucket_of(one.key) for one in given})
    middle = buckets[len(buckets) // 2]
    with engine.begin() as holder, engine.connect() as writer, engine.connect() as watcher:
        holder.execute(
            text("SELECT pg_advisory_xact_lock('lethe.outbox'::regclass::oid::int4, :bucket)"),
            {"bucket": middle},
        )
        pid = writer.scalar(text("SELECT pg_backend_pid()"))
        thread = threading.Thread(target=OUTBOX.append, args=(writer, *given))
        thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE pid = :pid AND NOT granted")
        until_sync(lambda: watcher.scalar(waiting, {"pid": pid}) == 1)
        found = watcher.execute(LOCKS, {"pid": pid}).all()
        holder.rollback()
        thread.join()
        after = watcher.execute(LOCKS, {"pid": pid}).all()
        writer.rollback()
    assert [row.number for row in found] == [one for one in buckets if one < middle]
    assert [(row.number, row.mode) for row in after] == [(one, "ExclusiveLock") for one in buckets]
