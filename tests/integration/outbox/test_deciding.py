"""Deciding about dead letters: what is sent back, what is not, and what is written down."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from os import urandom
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka.errors import KafkaError
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from lethe_outbox import Fate, Inbox, OutboxTables, ReplayOptions, Which, discard, replay
from lethe_outbox.dead_letters.choosing import find
from lethe_outbox.dead_letters.deciding import close_published, decisions, judge
from lethe_outbox.dead_letters.reader import pack_any_headers
from lethe_outbox.partitions.monthly import first_uuid7
from tests.integration.outbox.conftest import ReadAll
from tests.support.factories import TopicFactory
from tests.support.waiting import until

TABLE = OutboxTables().dead_letter
KIM = ReplayOptions(by="Kim")
DAY = timedelta(days=1)

Bury = Callable[..., Awaitable[int]]


@pytest.fixture
async def origin(topic: TopicFactory) -> str:
    return await topic("orders", partitions=1)


@pytest.fixture
def bury(engine: AsyncEngine, origin: str) -> Bury:
    """Record a dead letter and give its id."""
    offsets = iter(range(1_000_000))

    async def one(event_id: UUID | None = None, **changed: Any) -> int:
        event_id = event_id or uuid7()
        values = {
            "topic": f"{origin}.DLT",
            "partition": 0,
            "offset": next(offsets),
            "key": b"k",
            "event_id": event_id,
            "reason": "of_the_test",
            "refused_by": "a-group",
            "origin_topic": origin,
            "origin_partition": 0,
            "origin_offset": 7,
            "headers": pack_any_headers((("ce_id", str(event_id).encode()),)),
            "payload": b"bytes",
            **changed,
        }
        async with engine.begin() as connection:
            made = await connection.execute(insert(TABLE).values(values).returning(TABLE.c.id))
            return int(made.scalar_one())

    return one


def uuid7_of(moment: datetime) -> UUID:
    return UUID(int=first_uuid7(moment).int | 7 << 76 | 2 << 62)


async def states(engine: AsyncEngine) -> dict[int, str]:
    async with engine.connect() as connection:
        rows = await connection.execute(select(TABLE.c.id, TABLE.c.state))
        return {row.id: row.state for row in rows}


async def test_they_are_found_by_everything_they_carry(engine: AsyncEngine, bury: Bury) -> None:
    early = datetime.now(UTC) - 3 * DAY
    event_id = uuid7()
    a = await bury(recorded_at=early, key=b"a", reason="x", refused_by="g")
    b = await bury(event_id, key=b"b")
    c = await bury(topic="other.DLT", state="discarded")
    expected = {
        Which(): [a, b, c],
        Which(ids=(c, a, 999)): [a, c],
        Which(ids=()): [],
        Which(state="open"): [a, b],
        Which(topic="other.DLT"): [c],
        Which(key=b"a"): [a],
        Which(event_id=event_id): [b],
        Which(reason="x"): [a],
        Which(refused_by="g"): [a],
        Which(since=early + DAY): [b, c],
        Which(until=early + DAY): [a],
        Which(since=early, until=early): [],
        Which(state="open", since=early + DAY): [b],
    }
    async with engine.connect() as connection:
        for which, found in expected.items():
            assert await find(connection, which) == found, which


async def test_a_dry_run_says_what_would_be_and_does_nothing(
    engine: AsyncEngine, kafka: str, bury: Bury, read_all: ReadAll, origin: str
) -> None:
    one, gone = await bury(), await bury(state="discarded")
    ids = [one, gone, 999]
    would = await judge(engine, ids, KIM)
    assert would == {one: Fate.REPLAYED, gone: Fate.DISCARDED_BEFORE, 999: Fate.UNKNOWN}
    assert await judge(engine, [one, gone], None) == {
        one: Fate.DISCARDED,
        gone: Fate.DISCARDED_BEFORE,
    }
    assert await read_all(origin) == []
    assert (await states(engine))[one] == "open"
    assert await replay(engine, kafka, ids, KIM) == would


async def test_who_decided_what_when_and_why_is_kept(
    engine: AsyncEngine, kafka: str, bury: Bury
) -> None:
    back, junk = await bury(), await bury()
    before = datetime.now(UTC) - timedelta(minutes=1)
    await replay(engine, kafka, [back], KIM)
    fates = await discard(engine, [back, junk, 999], by="Lee", reason="test traffic")
    assert fates == {back: Fate.REPLAYED_BEFORE, junk: Fate.DISCARDED, 999: Fate.UNKNOWN}
    again = await discard(engine, [junk], by="Lee", reason="once more")
    assert again == {junk: Fate.DISCARDED_BEFORE}
    assert await replay(engine, kafka, [junk], KIM) == {junk: Fate.DISCARDED_BEFORE}
    assert await states(engine) == {back: "replayed", junk: "discarded"}
    async with engine.connect() as connection:
        (replayed,) = await decisions(connection, back)
        (discarded,) = await decisions(connection, junk)
        changed = list((await connection.execute(select(TABLE.c.state_changed_at))).scalars())
    assert all(moment > before for moment in changed), changed
    assert (replayed.decision, replayed.decided_by, replayed.reason) == ("replayed", "Kim", None)
    assert (discarded.decision, discarded.decided_by) == ("discarded", "Lee")
    assert discarded.reason == "test traffic"
    assert discarded.decided_at > before


async def test_a_discard_without_a_name_or_a_reason_is_refused(
    engine: AsyncEngine, bury: Bury
) -> None:
    one = await bury()
    for by, reason in (("", "x"), ("Kim", " ")):
        with pytest.raises(ValueError, match="name and a reason"):
            await discard(engine, [one], by=by, reason=reason)
    assert await states(engine) == {one: "open"}


async def test_only_topics_of_ours_are_written(
    engine: AsyncEngine, kafka: str, bury: Bury, origin: str
) -> None:
    foreign, without = await bury(origin_topic="elsewhere"), await bury(origin_topic=None)
    options = ReplayOptions(by="Kim", origins=[origin])
    assert await replay(engine, kafka, [foreign, without], options) == {
        foreign: Fate.WITHOUT_ORIGIN,
        without: Fate.WITHOUT_ORIGIN,
    }


async def test_an_event_that_consumers_may_have_forgotten_is_sent_only_if_asked(
    engine: AsyncEngine, kafka: str, bury: Bury
) -> None:
    now = datetime.now(UTC)
    by_id = await bury(uuid7_of(now - 36 * DAY))
    by_failure = await bury(uuid4(), first_failed_at=now - 36 * DAY)
    young = await bury(uuid7_of(now - 34 * DAY))
    careful = ReplayOptions(by="Kim", inbox_keeps=35 * DAY)
    assert await replay(engine, kafka, [by_id, by_failure, young], careful) == {
        by_id: Fate.TOO_OLD,
        by_failure: Fate.TOO_OLD,
        young: Fate.REPLAYED,
    }
    asked = await replay(engine, kafka, [by_id, by_failure], KIM)
    assert set(asked.values()) == {Fate.REPLAYED}


async def test_what_the_relay_was_refused_is_left_to_its_outbox_and_closed_once_it_came(
    engine: AsyncEngine, kafka: str, bury: Bury, read_all: ReadAll, origin: str
) -> None:
    event_id = uuid7()
    refused = await bury(event_id, refused_by="relay-intake", origin_offset=None)
    other = await bury(refused_by="relay-intake", origin_offset=None)
    consumed = await bury(event_id)  # by a consumer, which still has to handle it
    assert await replay(engine, kafka, [refused], KIM) == {refused: Fate.IN_OUTBOX}
    assert await read_all(origin) == []
    async with engine.begin() as connection:
        assert await close_published(connection, "reader") == 0
        await Inbox().handled(connection, [event_id], "somebody else")
        assert await close_published(connection, "reader") == 0
        await Inbox().handled(connection, [event_id], "reader")
        assert await close_published(connection, "reader") == 1
        assert await close_published(connection, "reader") == 0
        (decision,) = await decisions(connection, refused)
    assert decision.decided_by == "reader"
    assert await states(engine) == {refused: "replayed", other: "open", consumed: "open"}
    asked = ReplayOptions(by="Kim", from_outbox_too=True)
    assert await replay(engine, kafka, [other], asked) == {other: Fate.REPLAYED}


async def test_what_a_replay_is_at_work_on_is_not_closed_beside_it(
    engine: AsyncEngine, bury: Bury
) -> None:
    event_id = uuid7()
    letter = await bury(event_id, refused_by="relay-orders", origin_offset=None)
    async with engine.begin() as connection:
        await Inbox().handled(connection, [event_id], "orders")
    async with engine.begin() as replaying, engine.begin() as closing:
        await replaying.execute(select(TABLE).where(TABLE.c.id == letter).with_for_update())
        assert await asyncio.wait_for(close_published(closing, "orders"), 10) == 0
    async with engine.begin() as connection:
        assert await close_published(connection, "orders") == 1


async def test_they_go_in_the_order_in_which_they_were_recorded_and_each_once(
    engine: AsyncEngine, kafka: str, bury: Bury, read_all: ReadAll, origin: str
) -> None:
    ids = [await bury(payload=b"%d" % n) for n in range(3)]
    await replay(engine, kafka, [*reversed(ids), ids[0]], KIM)
    assert [record.value for record in await read_all(origin)] == [b"0", b"1", b"2"]


async def test_two_operators_at_once_publish_it_once(
    engine: AsyncEngine, kafka: str, bury: Bury, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = await bury()
    sent: list[str] = []
    waits = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    async def send(_producer: object, topic: str, *_: object) -> None:
        sent.append(topic)

        async def the_other_is_here() -> bool:
            async with engine.connect() as connection:
                return len(sent) > 1 or (await connection.execute(waits)).scalar_one() > 0

        await until(the_other_is_here)

    monkeypatch.setattr("lethe_outbox.dead_letters.deciding.DeadLetterProducer.send", send)
    both = await asyncio.gather(*(replay(engine, kafka, [letter], KIM) for _ in range(2)))
    assert len(sent) == 1
    assert sorted(fates[letter] for fates in both) == [Fate.REPLAYED, Fate.REPLAYED_BEFORE]


async def test_no_more_are_sent_than_the_rate_lets_through(
    engine: AsyncEngine, kafka: str, bury: Bury, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def noted(seconds: float) -> None:
        waits.append(seconds)

    closed = await bury(state="replayed")
    ids = [await bury() for _ in range(3)]
    monkeypatch.setattr("lethe_outbox.dead_letters.deciding.asyncio.sleep", noted)
    await replay(engine, kafka, [closed, *ids], ReplayOptions(by="Kim", per_second=0.001))
    # Only what is sent counts, and the clock hardly moves beside a thousand seconds.
    assert [round(one, -2) for one in waits] == [0, 1000, 2000]


async def test_when_the_broker_refuses_those_before_stay_done(
    engine: AsyncEngine, kafka: str, bury: Bury, topic: TopicFactory
) -> None:
    small = await topic("small", partitions=1, config={"max.message.bytes": "1000"})
    first = await bury()
    refused = await bury(origin_topic=small, payload=urandom(2000))
    last = await bury()
    told: list[int] = []
    with pytest.raises(KafkaError):
        await replay(
            engine, kafka, [first, refused, last], KIM, on_fate=lambda one, _: told.append(one)
        )
    assert told == [first]
    assert await states(engine) == {first: "replayed", refused: "open", last: "open"}
    async with engine.connect() as connection:
        count = await connection.execute(text("SELECT count(*) FROM lethe.dead_letter_decision"))
        assert count.scalar_one() == 1


async def test_ended_between_publishing_and_noting_it_is_sent_again_as_the_same_event(
    engine: AsyncEngine,
    kafka: str,
    bury: Bury,
    read_all: ReadAll,
    origin: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event_id = uuid7()
    first, second = await bury(event_id), await bury()

    async def ended(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("lethe_outbox.dead_letters.deciding._close", ended)
        with pytest.raises(SystemExit):
            await replay(engine, kafka, [first, second], KIM)
    assert await states(engine) == {first: "open", second: "open"}
    assert len(await read_all(origin)) == 1
    fates = await replay(engine, kafka, [first, second], KIM)
    assert set(fates.values()) == {Fate.REPLAYED}
    sent = [dict(record.headers)["ce_id"].decode() for record in await read_all(origin)]
    assert sent[:2] == [str(event_id)] * 2
    assert len(sent) == 3
