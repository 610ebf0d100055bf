"""A service that commits business transactions at a steady rate, each with one event."""

import sys
from contextlib import nullcontext

from sqlalchemy import create_engine, text

from benchmarks.harness.records import HEADERS, key, value
from benchmarks.harness.writing import write
from lethe_outbox import Message, Outbox, WakeUp

_BUSINESS = text("INSERT INTO business (v) VALUES (:v)")


def main(url: str, topic: str, rate: float, count: int, warm_up: int, *, hint: bool) -> None:
    """Commit as `write` says; with `hint`, tell relays after every commit."""
    engine = create_engine(url)
    outbox = Outbox()

    def commit(number: int) -> None:
        with engine.begin() as connection:
            connection.execute(_BUSINESS, {"v": number})
            message = Message(topic, key(number), value(number), tuple(HEADERS))
            outbox.append(connection, message)

    with WakeUp(engine) if hint else nullcontext():
        write(commit, rate, count, warm_up)
    engine.dispose()


_, _url, _topic, _rate, _count, _warm_up, _hint = sys.argv
main(_url, _topic, float(_rate), int(_count), int(_warm_up), hint=_hint == "hint")
