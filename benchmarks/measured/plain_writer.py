"""A service that commits business transactions at a steady rate, each with a row of a peer's."""

import sys
from functools import partial

import psycopg

from benchmarks.harness.records import TRACEPARENT, key, value
from benchmarks.harness.writing import write


def main(
    url: str, business: str, insert: str, topic: str, rate: float, count: int, warm_up: int
) -> None:
    """Commit as `write` says.

    Args:
        url: of the database.
        business: makes the table of the business, unless it is there.
        insert: the peer's row, of `topic`, `key`, `payload` and `traceparent`.
        topic: for the row.
        rate: transactions per second.
        count: of transactions that count.
        warm_up: how many come before them.
    """
    with psycopg.connect(url) as connection:
        connection.execute(business.replace("TABLE", "TABLE IF NOT EXISTS", 1).encode())
        connection.commit()
        write(partial(_commit, connection, insert.encode(), topic), rate, count, warm_up)


def _commit(
    connection: psycopg.Connection[tuple[object, ...]], insert: bytes, topic: str, number: int
) -> None:
    connection.execute("INSERT INTO business (v) VALUES (%s)", (number,))
    row = {
        "topic": topic,
        "key": key(number),
        "payload": value(number),
        "traceparent": TRACEPARENT.decode(),
    }
    connection.execute(insert, row)
    connection.commit()


_, _url, _business, _insert, _topic, _rate, _count, _warm_up = sys.argv
main(_url, _business, _insert, _topic, float(_rate), int(_count), int(_warm_up))
