"""One real exchange with each server: whether it answers, not whether its port is open."""

import asyncio
import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import psycopg
import redis
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from lethe_sandbox.stack.addresses import PostgresAddress

_SECONDS: Final = 5


def postgres_answers(address: PostgresAddress) -> bool:
    """Log in and run a statement."""
    url = address.database_url("postgres", driver="")
    try:
        with psycopg.connect(url, connect_timeout=_SECONDS) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def kafka_answers(bootstrap: str) -> bool:
    """Ask for the cluster as a client does."""
    host, _, port = bootstrap.rpartition(":")
    try:
        # First without the client, which logs an error for every broker it cannot reach.
        with socket.create_connection((host, int(port)), timeout=_SECONDS):
            pass
        # In a thread of its own: the caller's may be running an event loop already.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(_describes_itself(bootstrap))).result()
    except (KafkaError, OSError):
        return False


async def _describes_itself(bootstrap: str) -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_SECONDS * 1000)
    await admin.start()
    try:
        cluster = await admin.describe_cluster()
    finally:
        await admin.close()
    return bool(cluster["brokers"])


def redis_answers(url: str) -> bool:
    """Ping it."""
    with redis.Redis.from_url(url, socket_timeout=_SECONDS) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def s3_answers(endpoint: str) -> bool:
    """Send a request; whatever is said of the missing signature, an XML answer is S3's."""
    parts = urlsplit(endpoint)
    connection = http.client.HTTPConnection(
        parts.hostname or "127.0.0.1", parts.port, timeout=_SECONDS
    )
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        return b"<?xml" in connection.getresponse().read()
    return False
