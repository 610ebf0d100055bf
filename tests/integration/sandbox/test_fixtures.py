"""The fixtures every other test stands on."""

import socket
from concurrent.futures import ThreadPoolExecutor

import psycopg
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from lethe_sandbox.stack import Addresses, S3Address
from tests.support.databases import create, drop
from tests.support.factories import BucketFactory, TopicFactory
from tests.support.waiting import until_sync


def test_a_database_of_its_own_is_empty(database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version_num')::int / 10000,"
            " (SELECT count(*) FROM pg_tables WHERE schemaname = 'public')"
        ).fetchone()
    assert row == (18, 0)


def test_a_database_goes_though_somebody_never_finished_logging_in(stack: Addresses) -> None:
    name = create(stack)
    at = (stack.postgres.host, stack.postgres.port)
    with ThreadPoolExecutor(1) as pool, socket.create_connection(at) as client:
        said = f"\0\3\0\0user\0{stack.postgres.user}\0database\0{name}\0\0".encode()
        client.sendall((len(said) + 4).to_bytes(4, "big") + said)
        assert client.recv(1) == b"R", "the server waits for the password"
        dropping = pool.submit(drop, stack, name)
        until_sync(dropping.done, what="the end of the database")
    dropping.result()


async def test_a_topic_of_its_own_has_the_partitions_of_the_contract(
    kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(name, b"hello", key=b"k")
        partitions = await producer.partitions_for(name)
    consumer = AIOKafkaConsumer(name, bootstrap_servers=kafka, auto_offset_reset="earliest")
    async with consumer:
        assert (await consumer.getone()).value == b"hello"
    assert len(partitions) == 16


def test_a_versioned_bucket_keeps_versions(s3: S3Address, bucket: BucketFactory) -> None:
    name = bucket(versioned=True)
    client = s3.client()
    for body in (b"one", b"two"):
        client.put_object(Bucket=name, Key="k", Body=body)
    assert len(client.list_object_versions(Bucket=name)["Versions"]) == 2


def test_redis_answers_and_is_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_addresses_survive_a_state_file(stack: Addresses) -> None:
    assert Addresses.from_dict(stack.as_dict()) == stack
    assert stack.postgres.password not in repr(stack)
