"""A database with an inbox, and consumer processes."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from uuid_utils.compat import uuid7

from lethe_outbox import TopicSpec, dead_letter_topic, ensure_topics, initialise_group
from lethe_outbox.message import EVENT_ID_HEADER
from lethe_outbox.migrations import create_inbox
from tests.support import consumer_process
from tests.support.consumer_process import Wanted
from tests.support.databases import lay
from tests.support.fail_points import FailPoint
from tests.support.forked import Forked
from tests.support.topics import read_raw

PARTITIONS = 2


@dataclass(slots=True)
class Group:
    """A consumer group with a topic of its own, and what was published there."""

    wanted: Wanted
    log: Path
    events: list[str] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)
    processes: list[Forked] = field(default_factory=list)

    def start(self, *points: FailPoint) -> Forked:
        process = consumer_process.start(self.wanted, self.log, points)
        self.processes.append(process)
        return process

    async def publish(self, count: int, *, poison_at: int | None = None) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.wanted.kafka, acks="all")
        await producer.start()
        try:
            for number in range(count):
                event_id = str(uuid7())
                poisonous = number == poison_at
                (self.poison if poisonous else self.events).append(event_id)
                await producer.send_and_wait(
                    self.wanted.topic,
                    b"poison" if poisonous else b"x",
                    partition=number % PARTITIONS,
                    headers=[(EVENT_ID_HEADER, event_id.encode())],
                )
        finally:
            await producer.stop()

    def end_idle_transactions(self) -> int:
        """Do what `idle_in_transaction_session_timeout` does; says how many sessions had one."""
        with psycopg.connect(self.wanted.url.replace("+psycopg", "")) as connection:
            return connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and state = 'idle in transaction'"
            ).rowcount

    def rows(self, table: str) -> list[str]:
        """The events of this group in `effect` or `told`, sorted."""
        with psycopg.connect(self.wanted.url.replace("+psycopg", "")) as connection:
            found = connection.execute(
                f"SELECT event_id::text FROM {table} WHERE value = %s",  # noqa: S608 - one of two
                [self.wanted.group],
            )
            return sorted(row[0] for row in found)

    def done(self) -> bool:
        return len(self.rows("effect")) >= len(self.events)

    async def dead_letters(self) -> list[str]:
        """The event ids in the dead-letter topic, each as often as it is there."""
        records = await read_raw(self.wanted.kafka, [dead_letter_topic(self.wanted.topic)])
        return [dict(record.headers)[EVENT_ID_HEADER].decode() for record in records]

    async def behind(self) -> int:
        """How many records the group's committed offsets leave."""
        partitions = [TopicPartition(self.wanted.topic, number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.wanted.kafka,
            group_id=self.wanted.group,
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            return sum([ends[one] - (await consumer.committed(one) or 0) for one in partitions])
        finally:
            await consumer.stop()


@dataclass(slots=True)
class Groups:
    """Makes groups on one database."""

    wanted: Wanted
    folder: Path
    made: list[Group] = field(default_factory=list)

    async def make(self, **changed: float) -> Group:
        topic = f"consumed.{uuid4().hex}"
        group = f"group-{topic}"
        names = [topic, dead_letter_topic(topic)]
        await ensure_topics(self.wanted.kafka, [TopicSpec(name, PARTITIONS) for name in names])
        await initialise_group(self.wanted.kafka, group, [topic])
        wanted = replace(self.wanted, group=group, topic=topic, **changed)  # type: ignore[arg-type] # of the test's own choosing
        self.made.append(Group(wanted, self.folder / f"{group}.log"))
        return self.made[-1]


@pytest.fixture
def groups(database_url: str, kafka: str, redis_url: str, tmp_path: Path) -> Iterator[Groups]:
    """Make consumer groups; no process of theirs is left at the end."""
    lay(
        database_url,
        create_inbox,
        lambda op: op.execute("CREATE TABLE effect (event_id uuid, value text)"),
        lambda op: op.execute("CREATE TABLE told (event_id uuid, value text)"),
    )
    found = Groups(Wanted(database_url, kafka, redis_url, "", ""), tmp_path)
    yield found
    for process in [one for group in found.made for one in group.processes]:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()
