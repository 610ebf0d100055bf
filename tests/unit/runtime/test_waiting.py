import asyncio

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from tenacity.wait import wait_fixed

from lethe_runtime import waiting
from lethe_runtime.database import TRANSIENT
from lethe_runtime.health import Readiness
from lethe_runtime.waiting import Gate, Gated, StoppedError, Watch, until_available


class AwayError(Exception):
    pass


class Server:
    """Refuses so often, then answers."""

    def __init__(self, refusals: int, readiness: Readiness) -> None:
        self.refusals = refusals
        self.readiness = readiness
        self.seen: list[str] = []

    async def ask(self) -> str:
        self.seen.append(self.readiness.report().dependencies["database"].status)
        if self.refusals:
            self.refusals -= 1
            raise AwayError("secret words")
        return "answer"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSES", wait_fixed(0.001))


async def test_waits_until_it_answers_and_keeps_readiness_true() -> None:
    readiness = Readiness(["database"])
    server = Server(2, readiness)

    answer = await until_available(
        "database",
        server.ask,
        readiness=readiness,
        stop=asyncio.Event(),
        transient=(AwayError,),
    )

    assert answer == "answer"
    assert server.seen == ["unknown", "away", "away"]
    assert readiness.report().ready


async def test_why_a_database_is_away_stands_in_the_readiness() -> None:
    readiness = Readiness(["database"])
    seen: list[str | None] = []

    async def ask() -> None:
        seen.append(readiness.report().dependencies["database"].error_class)
        if len(seen) == 1:
            refused = 'FATAL:  password authentication failed for user "kim"'
            raise OperationalError(None, None, psycopg.OperationalError(refused))

    await until_available(
        "database", ask, readiness=readiness, stop=asyncio.Event(), transient=TRANSIENT
    )

    assert seen == [None, "OperationalError 28P01"]


async def test_another_error_is_raised_at_once() -> None:
    readiness = Readiness(["database"])
    server = Server(1, readiness)

    with pytest.raises(AwayError):
        await until_available(
            "database", server.ask, readiness=readiness, stop=asyncio.Event(), transient=(OSError,)
        )


async def test_stop_ends_the_waiting() -> None:
    readiness = Readiness(["database"])
    stop = asyncio.Event()
    stop.set()

    with pytest.raises(StoppedError):
        await until_available(
            "database",
            Server(1, readiness).ask,
            readiness=readiness,
            stop=stop,
            transient=(AwayError,),
        )
    assert readiness.report().dependencies["database"].error_class == "AwayError"


async def test_a_watch_notices_that_a_server_went_and_came_back() -> None:
    readiness = Readiness(["database"])
    stop = asyncio.Event()
    answers: list[bool] = [True, False, True]
    statuses: list[str] = []

    async def probe() -> None:
        statuses.append(readiness.report().dependencies["database"].status)
        if len(statuses) == 4:
            stop.set()
        if statuses and not answers[min(len(statuses), 3) - 1]:
            raise AwayError

    watch = Watch("database", probe, readiness=readiness, transient=(AwayError,), interval=0.001)
    await asyncio.wait_for(watch.run(stop), 5)

    assert statuses == ["unknown", "ok", "away", "ok"]


async def test_a_loop_begins_when_every_gate_is_open() -> None:
    readiness = Readiness(["database", "kafka"])
    stop = asyncio.Event()
    asked: list[str] = []

    async def database() -> None:
        asked.append("database")
        if asked.count("database") < 2:
            raise OSError

    async def kafka() -> None:
        asked.append("kafka")

    async def loop(_stop: asyncio.Event) -> None:
        asked.append("loop")

    gates = [Gate("database", database, (OSError,)), Gate("kafka", kafka, (OSError,))]
    await Gated(loop, gates, readiness).run(stop)
    assert asked == ["database", "database", "kafka", "loop"]
    assert readiness.report().ready


async def test_a_loop_behind_a_closed_gate_never_begins_once_stopped() -> None:
    stop = asyncio.Event()

    async def away() -> None:
        stop.set()
        raise OSError

    async def loop(_stop: asyncio.Event) -> None:
        raise AssertionError("it began")

    gate = Gate("database", away, (OSError,))
    await Gated(loop, [gate], Readiness(["database"])).run(stop)


async def test_a_gate_that_refuses_ends_the_loop() -> None:
    async def refuse() -> None:
        raise LookupError("another count")

    async def loop(_stop: asyncio.Event) -> None:
        raise AssertionError("it began")

    gated = Gated(loop, [Gate("kafka", refuse, (OSError,))], Readiness(["kafka"]))
    with pytest.raises(LookupError):
        await gated.run(asyncio.Event())
