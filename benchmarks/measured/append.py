"""Business transactions with events, and the same with bare INSERTs, in turn on one connection."""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, create_engine, text
from uuid_utils.compat import uuid7

from benchmarks.harness.records import HEADERS, KEYS, TRACEPARENT, key, value
from benchmarks.harness.told import hear_now, say
from lethe_outbox import EVENT_ID_HEADER, Message, Outbox, bucket_of

_TURN = 50
_BUSINESS = text("INSERT INTO business (v) VALUES (:v)")
_BARE = text(
    "INSERT INTO lethe.outbox (event_id, topic, key, bucket, payload, headers) "
    "VALUES (:event_id, :topic, :key, :bucket, :payload, :headers)"
)
_TOPIC = "bench"

Write = Callable[[Connection, Sequence[str]], None]
"""Writes one event per key."""


def _bare(connection: Connection, keys: Sequence[str]) -> None:
    rows = []
    for one in keys:
        event_id = uuid7()
        packed = b"\0".join(
            (EVENT_ID_HEADER.encode(), str(event_id).encode(), b"traceparent", TRACEPARENT)
        )
        rows.append(
            {
                "event_id": event_id,
                "topic": _TOPIC,
                "key": one,
                "bucket": bucket_of(one),
                "payload": value(0),
                "headers": packed,
            }
        )
    connection.execute(_BARE, rows)


def _appending(*, key_lock: bool) -> Write:
    outbox = Outbox(key_lock=key_lock)
    headers = tuple(HEADERS)

    def write(connection: Connection, keys: Sequence[str]) -> None:
        outbox.append(connection, *(Message(_TOPIC, one, value(0), headers) for one in keys))

    return write


WAYS: dict[str, Write] = {
    "bare": _bare,
    "locked": _appending(key_lock=True),
    "unlocked": _appending(key_lock=False),
}
EVENTS: dict[str, Callable[[int], list[str]]] = {
    "1": lambda n: [key(n)],
    "10": lambda n: [key(n)] * 10,
    "10_keys": lambda n: [key((n * 10 + i) % KEYS) for i in range(10)],
}
"""How many events a transaction has, and of which keys, by the name of the value."""


def main(url: str, seconds: float) -> None:
    """Work for `seconds` for each way and number of events, `_TURN` transactions at a turn."""
    engine = create_engine(url)
    count = itertools.count()
    spent: dict[tuple[str, str], list[float]] = {
        (way, events): [] for events in EVENTS for way in WAYS
    }
    with engine.connect() as connection:

        def turn(way: str, events: str) -> float:
            started = time.perf_counter()
            for _ in range(_TURN):
                number = next(count)
                connection.execute(_BUSINESS, {"v": number})
                WAYS[way](connection, EVENTS[events](number))
                connection.commit()
            return time.perf_counter() - started

        for way, events in spent:
            turn(way, events)
        say(ready=True)
        hear_now()
        ends = time.monotonic() + seconds * len(spent)
        while time.monotonic() < ends:
            for (way, events), turns in spent.items():
                turns.append(turn(way, events))
    say(**{f"{way}_{events}": _rate(turns) for (way, events), turns in spent.items()})
    hear_now()
    engine.dispose()


def _rate(turns: Sequence[float]) -> Any:
    """Transactions per second of the median turn: a checkpoint weighs on whoever meets it."""
    return _TURN / sorted(turns)[len(turns) // 2]


main(sys.argv[1], float(sys.argv[2]))
