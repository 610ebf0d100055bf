"""The product at work beside the eraser: reads and inserts at a steady rate, each timed."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from lethe_sandbox.stack import Addresses

RATE = 100
"""Turns a second, each of one read by key, one by client and one insert."""

_STRANGER = "acct-of-nobody"


class Neighbour:
    """One connection of the product; `took` are milliseconds per turn."""

    def __init__(self, addresses: Addresses) -> None:
        self._url = addresses.database_url("product", driver="")
        self.took: list[float] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Work until the block ends; what was measured before is forgotten."""
        self.took = []
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop,), name="product")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @property
    def p99_ms(self) -> float:
        """The slowest turn but one of a hundred."""
        return statistics.quantiles(self.took, n=100, method="inclusive")[98]

    def _work(self, stop: threading.Event) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            due = time.perf_counter()
            number = 0
            while not stop.is_set():
                number += 1
                self._turn(connection, number)
                # From when it was due: a turn that waits behind a slow one was slow, too.
                self.took.append((time.perf_counter() - due) * 1000)
                due += 1 / RATE
                stop.wait(max(0.0, due - time.perf_counter()))

    def _turn(self, connection: psycopg.Connection[tuple[object, ...]], number: int) -> None:
        connection.execute("SELECT * FROM face_swap_feature WHERE id = %s", (number,))
        connection.execute(
            "SELECT * FROM client WHERE client_key = %s ORDER BY id DESC LIMIT 20",
            (f"acct-{number % 300:06}",),
        )
        connection.execute(
            "INSERT INTO client (client_key, request_type, request_id, created_at)"
            " VALUES (%s, 'face-swap', %s, now())",
            (_STRANGER, number),
        )
