"""A service that commits business transactions at a steady rate, each with one event."""

import sys
import time

from sqlalchemy import create_engine, text

from benchmarks.harness.records import HEADERS, key, value
from benchmarks.harness.told import hear_now, say
from lethe_outbox import Message, Outbox

_BUSINESS = text("INSERT INTO business (v) VALUES (:v)")
_WARM_UP_RATE = 20
_QUIET_SECONDS = 1


def main(url: str, topic: str, rate: float, count: int, warm_up: int) -> None:
    """Commit `warm_up` and then `count` transactions at `rate` per second, telling when each was.

    A moment is the monotonic clock's, which all processes of a machine share, taken when the commit
    returned.
    """
    engine = create_engine(url)
    outbox = Outbox()
    committed = []
    with engine.connect() as connection:

        def commit(number: int) -> None:
            connection.execute(_BUSINESS, {"v": number})
            message = Message(topic, key(number), value(number), tuple(HEADERS))
            outbox.append(connection, message)
            connection.commit()
            committed.append(time.monotonic())

        def at_rate(numbers: range, per_second: float) -> None:
            started = time.monotonic()
            for place, number in enumerate(numbers):
                time.sleep(max(0.0, started + place / per_second - time.monotonic()))
                commit(number)

        say(ready=True)
        hear_now()
        at_rate(range(warm_up), max(rate, _WARM_UP_RATE))
        time.sleep(_QUIET_SECONDS)
        at_rate(range(warm_up, warm_up + count), rate)
    say(at=committed[warm_up:])
    hear_now()
    engine.dispose()


main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
