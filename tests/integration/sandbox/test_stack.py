"""The servers as fault tests use them, and what becomes of them when their owner dies."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from lethe_sandbox.stack import (
    Addresses,
    EmbeddedStack,
    Folders,
    Instance,
    InUseError,
    Stack,
    StackError,
    read,
    sweep,
)
from lethe_sandbox.stack.embedded import starting
from lethe_sandbox.stack.ports import free_ports
from tests.support.factories import TopicFactory
from tests.support.waiting import until_sync

OWNER = """
import sys
from lethe_sandbox.stack import EmbeddedStack, Folders, Instance
folders = Folders.of_checkout()
name, kept = sys.argv[1], sys.argv[2] == "kept"
with EmbeddedStack(folders, Instance(folders, name, kept=kept).claim()):
    print("ready", flush=True)
    if not kept:
        sys.stdin.read()
"""


def test_postgres_comes_back_on_its_port_with_its_data(
    running_stack: Stack, database_url: str
) -> None:
    url = database_url.replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    for kill in (False, True):
        running_stack.stop("postgres", kill=kill)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        running_stack.start("postgres")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (1,)


async def test_kafka_comes_back_with_its_records(
    running_stack: Stack, kafka: str, topic: TopicFactory
) -> None:
    name = await topic(partitions=1)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(name, b"kept")
    running_stack.stop("kafka")
    running_stack.start("kafka")
    consumer = AIOKafkaConsumer(name, bootstrap_servers=kafka, auto_offset_reset="earliest")
    async with consumer:
        assert (await consumer.getone()).value == b"kept"


def test_a_paused_server_keeps_its_connections_and_answers_later(
    running_stack: Stack, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url, socket_timeout=0.2) as client:
        client.set("k", "v")
        running_stack.pause("redis")
        with pytest.raises(redis.TimeoutError):
            client.get("k")
        running_stack.resume("redis")
        assert until_sync(lambda: client.get("k")) == b"v"


def test_starting_what_runs_changes_nothing(running_stack: Stack, stack: Addresses) -> None:
    running_stack.start("redis")
    assert running_stack.addresses == stack


def test_a_port_somebody_else_took_first_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch, folders: Folders
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        offers = iter([(taken,), free_ports(1)])
        monkeypatch.setattr(starting, "free_ports", lambda _: next(offers))
        instance = Instance.claim_any(folders, "ports")
        stack = EmbeddedStack(folders, instance)
        try:
            stack._first_start("redis")
            assert stack._redis.port != taken
        finally:
            instance.discard()


def test_a_server_that_cannot_run_says_where_to_look(folders: Folders) -> None:
    instance = Instance.claim_any(folders, "broken")
    stack = EmbeddedStack(folders, instance)
    stack._redis.folder.write_text("a file where its folder should be")
    try:
        with pytest.raises(StackError, match="cannot create the folder"):
            stack._first_start("redis")
    finally:
        instance.discard()


@pytest.fixture
def folders(running_stack: Stack) -> Folders:
    """The folders of this checkout, with everything installed already."""
    assert running_stack.addresses
    return Folders.of_checkout()


@pytest.fixture
def owner(folders: Folders) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that owns a stack."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, "owned", "dies"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()
    sweep(folders)


def test_servers_die_with_an_owner_that_was_killed_even_when_frozen(
    folders: Folders, owner: subprocess.Popen[bytes]
) -> None:
    recorded = read(folders.instances / "owned")
    assert recorded is not None
    assert set(recorded.processes) == {"postgres", "kafka", "redis", "s3"}
    with pytest.raises(InUseError):
        Instance(folders, "owned", kept=False).claim()
    recorded.processes["postgres"].pause()

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    others = [process for name, process in recorded.processes.items() if name != "postgres"]
    until_sync(lambda: not any(process.alive() for process in others), what="the servers' end")
    sweep(folders)
    assert not recorded.processes["postgres"].alive()
    assert not (folders.instances / "owned").exists()
    assert not Path(folders.passable / "owned").exists()


def test_kept_servers_outlive_their_command_until_they_are_taken_down(folders: Folders) -> None:
    subprocess.run([sys.executable, "-c", OWNER, "outlives", "kept"], check=True)
    sweep(folders)
    instance = Instance(folders, "outlives", kept=True)
    recorded = instance.adopt()
    assert recorded is not None
    assert recorded.addresses is not None
    try:
        assert all(process.alive() for process in recorded.processes.values())
        with redis.Redis.from_url(recorded.addresses.redis_url) as client:
            assert client.ping()
        instance.release()
        with pytest.raises(InUseError, match="sandbox down"):
            Instance(folders, "outlives", kept=True).claim()
        assert instance.adopt()
    finally:
        instance.discard()
    assert not any(process.alive() for process in recorded.processes.values())
