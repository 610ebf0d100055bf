"""Get the sample into the servers fast: COPY for rows, parallel PUTs for objects, little memory."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from threading import BoundedSemaphore, local
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, urlsplit

import psycopg
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from psycopg import sql

from lethe_sandbox.product import TABLES, VERSIONED
from lethe_sandbox.seed.records import SeedObject, SeedRow
from lethe_sandbox.stack import S3Address

_ROWS_HELD: Final = 1000
_THREADS: Final = 8
_OBJECTS_HELD: Final = 64 * _THREADS
_OK: Final = 200
_SECONDS: Final = 60


class PutError(Exception):
    """S3 refused an object; the message has its status and answer."""


class Rows:
    """Collects rows of many tables and copies them in turns; the caller commits."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._held: dict[str, list[tuple[str | None, ...]]] = {name: [] for name in TABLES}
        self._count = 0
        self.done = 0
        """Rows that PostgreSQL has."""

    def add(self, row: SeedRow) -> None:
        """Take one row; now and then, copy those that were collected."""
        self._held[row.truth.table].append(row.values)
        self._count += 1
        if self._count >= _ROWS_HELD:
            self.flush()

    def flush(self) -> None:
        """Copy everything that was collected."""
        for name, rows in self._held.items():
            if not rows:
                continue
            statement = sql.SQL("copy {} ({}) from stdin").format(
                sql.Identifier("public", name),
                sql.SQL(", ").join(map(sql.Identifier, TABLES[name].columns)),
            )
            with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
            rows.clear()
        self.done += self._count
        self._count = 0


class Objects:
    """Puts objects from several threads; few wait in memory, and the first error ends it.

    Args:
        address: where S3 answers.
        folder: where that server keeps its buckets as folders of files, if it does: an object of
            one version is then written there, which takes no request.
    """

    def __init__(self, address: S3Address, folder: Path | None = None) -> None:
        self._folder = folder
        self._s3 = address.client()
        self._put = _Put(address)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="put")
        self._free = BoundedSemaphore(_OBJECTS_HELD)
        self._flying: deque[Future[None]] = deque()
        self.done = 0
        """Objects that S3 has, every version of them."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the threads: after an error, objects that wait are not put any more."""
        self._threads.shutdown(cancel_futures=error is not None)
        self._put.close()
        self._s3.close()

    def add(self, stored: SeedObject) -> None:
        """Hand over one object; waits while too many are under way, raises what one of them met."""
        self._free.acquire()
        future = self._threads.submit(self._store, stored)
        future.add_done_callback(lambda _: self._free.release())
        self._flying.append(future)
        while self._flying and self._flying[0].done():
            self._arrived()

    def flush(self, told: int = 50) -> bool:
        """Wait for the next `told` objects; tells whether any are under way still."""
        for _ in range(min(told, len(self._flying))):
            self._arrived()
        return bool(self._flying)

    def _arrived(self) -> None:
        self._flying.popleft().result()
        self.done += 1

    def _store(self, stored: SeedObject) -> None:
        place = stored.truth
        if self._written(stored):
            return
        # In turn: the order of versions is part of the ground truth.
        for body in stored.bodies:
            self._put(place.bucket, place.key, body)
        if place.deleted:
            self._s3.delete_object(Bucket=place.bucket, Key=place.key)

    def _written(self, stored: SeedObject) -> bool:
        place = stored.truth
        is_plain = place.bucket not in VERSIONED and not place.deleted and len(stored.bodies) == 1
        if self._folder is None or not is_plain:
            return False
        path = self._folder / place.bucket / place.key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stored.bodies[0])
        except OSError:
            # No name of a file, or beside a folder of that name: S3 says what it thinks of it.
            return False
        return True


class _Put:
    """Puts an object at a third of the processor time that a boto3 client takes.

    Nothing is tried twice: in a versioned bucket, a repetition could leave one version too many.
    """

    def __init__(self, address: S3Address) -> None:
        self._endpoint = address.endpoint.rstrip("/")
        credentials = Credentials(address.access_key_id, address.secret_access_key)
        self._auth = S3SigV4Auth(credentials, "s3", address.region)
        self._of_thread = local()
        self._connections: list[HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._connections:
            connection.close()

    def __call__(self, bucket: str, key: str, body: bytes) -> None:
        path = f"/{bucket}/{quote(key, safe='/~')}"
        request = AWSRequest("PUT", f"{self._endpoint}{path}", data=body)
        self._auth.add_auth(request)
        connection = self._connection()
        connection.request("PUT", path, body, dict(request.headers.items()))
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != _OK:
            raise PutError(f"PUT answered {answer.status}: {said[:200].decode(errors='replace')}")

    def _connection(self) -> HTTPConnection:
        connection: HTTPConnection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            where = urlsplit(self._endpoint)
            kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
            connection = kind(where.hostname or "", where.port, timeout=_SECONDS)
            self._of_thread.connection = connection
            self._connections.append(connection)
        return connection
