"""The outbox in memory beside real sessions and connections (on SQLite), and beside mocks."""

import gc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from unittest.mock import Mock
from weakref import ref

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from lethe_outbox import ConsumerSettings, Message, Outbox, Record
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


def test_a_row_that_was_brought_back_has_no_reason_any_more(outbox: MemoryOutbox) -> None:
    broker = MemoryBroker()
    relay = MemoryRelay(outbox, broker)
    outbox.append(Mock(), message("customer-7"))
    relay.publish()
    assert [row.reason for row in outbox.rows] == ["unknown_topic"]
    broker.create_topic("orders.v1")
    assert relay.requeue() == 1
    assert relay.publish() == 1
    assert [row.reason for row in outbox.rows] == [None]


def test_a_broker_takes_keys_as_kafka_does_and_counts_offsets_in_each_partition() -> None:
    broker = MemoryBroker("orders.v1")
    sent = [broker.send("orders.v1", key, b"1") for key in (b"k1", b"\xff", b"", None, b"k1")]
    # What aiokafka's partitioner says of these keys and 16 partitions.
    assert [one.partition for one in sent[1:3]] == [11, 9]
    assert [one.offset for one in sent if one.partition == sent[0].partition][:2] == [0, 1]
    assert sent[3].offset == sum(one.partition == 0 for one in sent[:3])


def test_a_topic_that_is_there_keeps_its_records_and_takes_the_new_limit() -> None:
    broker = MemoryBroker("orders.v1")
    broker.send("orders.v1", b"k", b"1")
    broker.create_topic("orders.v1", max_message_bytes=100)
    with pytest.raises(MessageSizeTooLargeError):
        broker.send("orders.v1", b"k", b"1" * 100)
    assert [one.value for one in broker.records("orders.v1")] == [b"1"]


async def test_a_handler_that_ends_its_transaction_in_memory_has_failed_too() -> None:
    broker = MemoryBroker("orders.v1")
    broker.send("orders.v1", b"k", b"1", [("ce_id", b"01932c07-209f-7000-8000-000000000001")])

    async def handle(connection: Any, _records: Sequence[Record]) -> None:
        connection.rollback()

    settings = ConsumerSettings(attempts=1)
    consumer = MemoryConsumer(broker, "shipping", ["orders.v1"], handle, settings=settings)
    assert await consumer.consume() == 1
    (dead,) = broker.dead_letters("orders.v1")
    assert dead.header("error-class") == b"TransactionError"
