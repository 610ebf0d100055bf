"""The outbox in memory beside real sessions and connections (on SQLite), and beside mocks."""

import gc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from unittest.mock import Mock
from weakref import ref

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from lethe_outbox import Message, Outbox, Record
from lethe_outbox.testing import (
    MemoryBroker,
    MemoryConsumer,
    MemoryOutbox,
    MemoryRelay,
    MemoryTransaction,
)


def message(key: str) -> Message:
    return Message("orders.v1", key, b"1")


def keys(outbox: MemoryOutbox) -> list[str]:
    return [one.key for one in outbox.messages]


@pytest.fixture
def outbox() -> MemoryOutbox:
    return MemoryOutbox()


def test_it_stands_wherever_an_outbox_is_asked_for(outbox: MemoryOutbox) -> None:
    def place_order(session: Session, events: Outbox) -> None:
        events.append(session, message("customer-7"))

    with Session(create_engine("sqlite://")) as session, session.begin():
        place_order(session, outbox)
        assert outbox.messages == []
    assert keys(outbox) == ["customer-7"]


def test_a_session_of_sqlalchemy_decides_by_its_commit_and_its_savepoints(
    outbox: MemoryOutbox,
) -> None:
    with Session(create_engine("sqlite://")) as session:
        outbox.append(session, message("lost"))
        session.rollback()
        outbox.append(session, message("before"))
        with suppress(LookupError), session.begin_nested():
            with session.begin_nested():
                outbox.append(session, message("released into what is undone"))
            outbox.append(session, message("inside"))
            raise LookupError
        with session.begin_nested():
            outbox.append(session, message("released"))
        assert outbox.messages == []
        session.commit()
        assert keys(outbox) == ["before", "released"]
        outbox.append(session, message("never committed"))
    assert keys(outbox) == ["before", "released"]


def test_a_connection_of_sqlalchemy_decides_by_its_commit_and_its_savepoints(
    outbox: MemoryOutbox,
) -> None:
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("select 1"))
        with suppress(LookupError), connection.begin_nested():
            outbox.append(connection, message("older savepoint"))
            raise LookupError
        outbox.append(connection, message("before"))
        with suppress(LookupError), connection.begin_nested():
            outbox.append(connection, message("inside"))
            raise LookupError
        with connection.begin_nested():
            outbox.append(connection, message("released"))
        connection.commit()
        assert keys(outbox) == ["before", "released"]
        outbox.append(connection, message("lost"))
        connection.rollback()
        outbox.append(connection, message("never committed"))
    assert keys(outbox) == ["before", "released"]


def test_a_scoped_session_is_the_session_of_its_scope(outbox: MemoryOutbox) -> None:
    sessions = scoped_session(sessionmaker(create_engine("sqlite://")))
    outbox.append(sessions, message("kept"))
    assert outbox.messages == []
    sessions.commit()
    sessions.remove()
    assert keys(outbox) == ["kept"]


def test_nothing_keeps_a_session_alive(outbox: MemoryOutbox) -> None:
    session = Session(create_engine("sqlite://"))
    outbox.append(session, message("kept"))
    session.commit()
    watched = ref(session)
    del session
    gc.collect()
    assert watched() is None


def test_a_mock_counts_as_having_committed(outbox: MemoryOutbox) -> None:
    outbox.append(Mock(), message("customer-7"))
    assert keys(outbox) == ["customer-7"]


def test_rows_stand_in_the_order_of_appending_whoever_commits_first(outbox: MemoryOutbox) -> None:
    late, early = MemoryTransaction(), MemoryTransaction()
    outbox.append(late, message("first"))
    outbox.append(early, message("second"))
    early.commit()
    late.commit()
    assert keys(outbox) == ["first", "second"]


async def test_a_relay_that_dies_before_it_acknowledges_publishes_again(
    outbox: MemoryOutbox,
) -> None:
    broker = MemoryBroker("orders.v1")
    relay = MemoryRelay(outbox, broker)
    handled: list[bytes | None] = []

    async def handle(connection: Any, records: Sequence[Record]) -> None:
        connection.on_commit(lambda: handled.extend(one.key for one in records))

    consumer = MemoryConsumer(broker, "shipping", ["orders.v1"], handle)
    with MemoryTransaction() as transaction:
        outbox.append(transaction, message("customer-7"))
    assert relay.publish(acknowledge=False) == 1
    assert await consumer.consume() == 1
    assert relay.publish() == 1
    assert relay.publish() == 0
    assert await consumer.consume() == 1
    assert [one.key for one in broker.records("orders.v1")] == [b"customer-7"] * 2
    assert handled == [b"customer-7"]
    sample = {"group": "shipping", "topic": "orders.v1", "outcome": "duplicate"}
    assert consumer.registry.get_sample_value("outbox_consumer_records_total", sample) == 1
