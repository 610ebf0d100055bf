"""Finds a word in anything, however it is written: for tests that nothing readable is left."""

import base64
import binascii
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import psycopg
import redis
from psycopg import sql

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
_ESCAPE: Final = re.compile(rb"\\u([0-9a-fA-F]{4})")
_DEEP: Final = 4


def forms(data: bytes) -> Iterator[bytes]:
    """Give `data`, and all that it may stand for: unquoted, unpacked, out of hex and base64."""
    seen = set[bytes]()
    todo = [(data, 0)]
    while todo:
        one, depth = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        yield one
        if depth < _DEEP:
            todo += [(other, depth + 1) for other in _readings(one)]


def _readings(data: bytes) -> Iterator[bytes]:
    if b"%" in data:
        yield unquote_to_bytes(data)
    if b"\\" in data:
        yield _ESCAPE.sub(_unescaped, data).replace(b"\\/", b"/")
    for unpack in (zlib.decompress, gzip.decompress):
        with suppress(zlib.error, OSError, EOFError):
            yield unpack(data)
    for found in _HEX.findall(data):
        yield bytes.fromhex(found.decode())
    for found in _BASE64.findall(data):
        plain = found.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        # Cut out of something longer it may begin at any of four places.
        for start in range(4):
            part = plain[start:]
            with suppress(binascii.Error, ValueError):
                yield base64.b64decode(part + b"=" * (-len(part) % 4))


def _unescaped(found: re.Match[bytes]) -> bytes:
    return chr(int(found[1], 16)).encode("utf-8", "surrogatepass")


def traces(places: Iterable[tuple[str, bytes]], words: Iterable[str]) -> list[str]:
    """Name the places that hold one of `words`, in any form and any case."""
    wanted = [word.encode().lower() for word in words]
    return sorted(
        {
            place
            for place, data in places
            if any(word in form.lower() for form in forms(data) for word in wanted)
        }
    )


def of_database(url: str) -> Iterator[tuple[str, bytes]]:
    """Give every value of every table of every schema of a database."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables"
            " where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL("select * from only {}").format(sql.Identifier(schema, table))
            rows = connection.execute(query)
            names = [column.name for column in rows.description or ()]
            for row in rows:
                for name, value in zip(names, row, strict=True):
                    yield f"{schema}.{table}.{name}", _bytes(value)


def of_records(records: Iterable[Any]) -> Iterator[tuple[str, bytes]]:
    """Give keys, values and headers of Kafka's records."""
    for record in records:
        yield f"{record.topic} key", record.key or b""
        yield f"{record.topic} value", record.value or b""
        for name, value in record.headers:
            yield f"{record.topic} header {name}", value or b""


def of_redis(url: str) -> Iterator[tuple[str, bytes]]:
    """Give every key of a Redis database, and what it holds."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            yield "redis key", key
            yield "redis value", _bytes(_held(client, key))


def _held(client: redis.Redis, key: bytes) -> object:
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"hash":
            return client.hgetall(key)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1)
        case b"list":
            return client.lrange(key, 0, -1)
        case other:
            raise NotImplementedError(other)


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return str(value).encode("utf-8", "surrogatepass")
