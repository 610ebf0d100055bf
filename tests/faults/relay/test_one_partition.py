"""One partition that takes nothing, beside others that do: its lane waits, and nobody else."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.structs import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.kafka.clients import started
from lethe_outbox.relay.producer import Producer
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.reach import Reach
from tests.support.factories import TopicFactory
from tests.support.outbox_world import (
    QUICK,
    append_apart,
    drained,
    events,
    key_in_lane,
    problems,
    read_topics,
    running,
)
from tests.support.waiting import until

BAD = 3
BAD_KEYS = [key_in_lane(BAD), key_in_lane(BAD, 1)]
OTHER_KEYS = [key_in_lane(lane) for lane in range(16) if lane != BAD]
IMPATIENT = replace(QUICK, publish_seconds=1.0)
ATTEMPTS = 4


class Trouble:
    """Partitions that take nothing, and what the relay's producers do meanwhile.

    Attributes:
        places: topic and partition.
        refused: how often one was asked for, or asked to take something.
        carried: the producers that other partitions' batches were handed over to.
    """

    def __init__(self) -> None:
        self.places: set[TopicPartition] = set()
        self.refused = 0
        self.started = 0
        self.carried: list[Producer] = []

    def takes_nothing(self, place: TopicPartition) -> bool:
        self.refused += place in self.places
        return place in self.places


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Trouble:
    found = Trouble()
    hand_over, start = Producer.hand_over, Producers._start

    async def noted(producer: Producer, batch: Any, topic: str, partition: int, *more: Any) -> Any:
        place = TopicPartition(topic, partition)
        if place not in found.places and producer not in found.carried:
            found.carried.append(producer)
        return await hand_over(producer, batch, topic, partition, *more)

    async def counted(producers: Producers) -> Producer | None:
        found.started += 1
        return await start(producers)

    monkeypatch.setattr(Producer, "hand_over", noted)
    monkeypatch.setattr(Producers, "_start", counted)
    return found


def without_leader(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say of the partitions what metadata says while they have no leader."""
    known = ClusterMetadata.leader_for_partition

    def leader(cluster: ClusterMetadata, place: TopicPartition) -> Any:
        return -1 if trouble.takes_nothing(place) else known(cluster, place)

    monkeypatch.setattr(ClusterMetadata, "leader_for_partition", leader)


def without_replicas(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have batches tried again, as after `NotEnoughReplicas`, which no lone broker answers."""
    do = SendProduceReqHandler.do

    async def tried(handler: Any, node: int) -> None:
        batches = handler._batches
        handler._batches = {
            place: batch for place, batch in batches.items() if not trouble.takes_nothing(place)
        }
        handler._to_reenqueue += [
            batch for place, batch in batches.items() if place not in handler._batches
        ]
        await do(handler, node)

    monkeypatch.setattr(SendProduceReqHandler, "do", tried)


KINDS: dict[str, Callable[[Trouble, pytest.MonkeyPatch], None]] = {
    "leader": without_leader,
    "replicas": without_replicas,
}


@pytest.fixture(params=KINDS)
def kind(
    request: pytest.FixtureRequest, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Make partitions take nothing in one of the ways there are."""
    KINDS[request.param](trouble, monkeypatch)
    yield
    trouble.places.clear()


async def waiting(engine: AsyncEngine) -> Counter[str]:
    """Give how many rows wait, by key."""
    async with engine.connect() as connection:
        query = text("select key, count(*) from lethe.outbox where status = 0 group by key")
        return Counter({row[0]: row[1] for row in await connection.execute(query)})


async def only_bad_wait(engine: AsyncEngine) -> bool:
    return set(await waiting(engine)) <= set(BAD_KEYS)


@pytest.mark.usefixtures("kind")
async def test_a_partition_that_takes_nothing_stops_its_own_lane_only(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, trouble: Trouble
) -> None:
    name = await topic()
    async with running(database_url, kafka, IMPATIENT) as relay:
        await append_apart(engine, *events(name, [*BAD_KEYS, *OTHER_KEYS], 2))
        await drained(engine)
        trouble.places.add(TopicPartition(name, BAD))
        trouble.carried.clear()
        begun = trouble.started
        await append_apart(engine, *events(name, BAD_KEYS, 5))
        while trouble.started < begun + ATTEMPTS:
            await append_apart(engine, *events(name, OTHER_KEYS, 1))
            await until(lambda: only_bad_wait(engine), what="others' rows that are sent")
        carried = list(trouble.carried)
        assert sum((await waiting(engine)).values()) == 5 * len(BAD_KEYS)
        assert relay.value("relay_paused") == 0
        trouble.places.clear()
        await append_apart(engine, *events(name, [*BAD_KEYS, *OTHER_KEYS], 3))
        await drained(engine)
        assert relay.value("relay_dlt_failed_total", topic=name) == 0
    # The one there was, and the one after it: what hangs in the first is not to go out later.
    assert len(carried) <= 2
    assert await problems(engine, kafka, [name]) == []
    seen = Counter(record.event_id for record in await read_topics(kafka, [name]))
    assert set(seen.values()) == {1}


@pytest.mark.usefixtures("kind")
async def test_what_waits_for_a_partition_takes_no_room_of_the_others(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, trouble: Trouble
) -> None:
    name = await topic()
    small = replace(IMPATIENT, waiting_bytes=40_000, batch_bytes=10_000)
    trouble.places.add(TopicPartition(name, BAD))
    await append_apart(engine, *events(name, BAD_KEYS, 40, size=2000))
    async with running(database_url, kafka, small):
        await until(lambda: trouble.refused > 0, what="a partition that takes nothing")
        for _ in range(3):
            await append_apart(engine, *events(name, OTHER_KEYS, 2, size=2000))
            await until(lambda: only_bad_wait(engine), what="others' rows that are sent")
        trouble.places.clear()
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []


@pytest.mark.usefixtures("kind")
async def test_a_relay_stops_in_time_while_a_partition_takes_nothing(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, trouble: Trouble
) -> None:
    name = await topic()
    trouble.places.add(TopicPartition(name, BAD))
    await append_apart(engine, *events(name, [*BAD_KEYS, *OTHER_KEYS], 2))
    async with running(database_url, kafka, IMPATIENT) as relay:
        await until(lambda: trouble.started > 2, what="a lane that tries by itself")
        await until(lambda: only_bad_wait(engine), what="others' rows that are sent")
        relay.stop.set()
        assert relay.task is not None
        await asyncio.wait_for(asyncio.shield(relay.task), 10)
        trouble.places.clear()
    async with running(database_url, kafka, IMPATIENT):
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []


async def test_where_no_partition_takes_anything_an_attempt_is_told_of_once(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    trouble: Trouble,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without_leader(trouble, monkeypatch)
    name = await topic()

    def told() -> list[str]:
        return [line for line in caplog.messages if line.startswith("a partition takes nothing")]

    trouble.places.update(TopicPartition(name, partition) for partition in range(16))
    await append_apart(engine, *events(name, [*BAD_KEYS, *OTHER_KEYS], 1))
    async with running(database_url, kafka, IMPATIENT) as relay:
        await until(lambda: any("attempt 4," in line for line in told()))
        assert len(told()) == len({line.partition("attempt")[2] for line in told()})
        trouble.places.clear()
        await drained(engine)
        await until(lambda: relay.value("relay_paused") == 0)
    assert await problems(engine, kafka, [name]) == []


@pytest.mark.usefixtures("kind")
async def test_a_broker_that_is_back_and_takes_nothing_is_not_taken_for_well(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    trouble: Trouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An alert that waits for two minutes begins anew with each moment in which all seems well."""
    name = await topic()
    away = [True]

    async def connected(kafka: Any) -> None:
        if away:
            away.clear()
            raise KafkaConnectionError("away")
        await started(kafka)

    monkeypatch.setattr("lethe_outbox.relay.producers.started", connected)
    trouble.places.add(TopicPartition(name, BAD))
    await append_apart(engine, *events(name, BAD_KEYS, 2))
    async with running(database_url, kafka, IMPATIENT) as relay:
        begun = trouble.started
        await until(lambda: trouble.started > begun + 3 * ATTEMPTS, within=40)
        assert {state[1] for state in relay.states if state[0] == "kafka"} == {"away"}
        trouble.places.clear()
        await drained(engine)
        await until(lambda: relay.value("relay_paused") == 0)
    assert await problems(engine, kafka, [name]) == []


async def test_what_is_sent_by_another_producer_leaves_the_first_one_no_more(
    kafka: str, topic: TopicFactory, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could come much later, when its rows are dead letters, or behind later ones."""
    without_replicas(trouble, monkeypatch)
    name = await topic()
    reach = Reach(IMPATIENT, lambda *_: None)
    producers = Producers(kafka, IMPATIENT, idempotent=True, reach=reach)
    producer = await producers.current()
    trouble.places.add(TopicPartition(name, BAD))
    await producer.partitions(name)
    batch = producer.batch()
    batch.append(key=b"key", value=b"late", timestamp=None)
    batch.close()
    sent = await producer.hand_over(batch, name, BAD, lambda: True)
    await until(lambda: trouble.refused > 1, what="a batch that is tried again and again")

    producer.give_up(batch)
    with pytest.raises(KafkaTimeoutError):
        await asyncio.wait_for(sent, 20)
    trouble.places.clear()
    await producers.close()
    assert await read_topics(kafka, [name]) == []
