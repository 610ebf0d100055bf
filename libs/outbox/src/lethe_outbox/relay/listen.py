"""Hearing wake-up hints, on a connection of its own; without any, the relay polls as before."""

import asyncio
import logging
import time
from typing import Final

import psycopg
from prometheus_client import Counter
from sqlalchemy import make_url
from uuid_utils.compat import uuid4

from lethe_outbox.relay.session import TRANSIENT, Connection, connect
from lethe_outbox.wake_up_storage import NOTIFY, channel, listen

_FIRST_PAUSE: Final = 0.25
_PROBE_SECONDS: Final = 5.0
_LOST: Final[tuple[type[Exception], ...]] = (psycopg.Error, *TRANSIENT)
_log = logging.getLogger(__name__)


class Listener:
    """Sets an event whenever somebody says that there is something to publish.

    Whether hints arrive at all is tried out with one of our own, sent on another connection: a
    pooler in transaction mode takes LISTEN and loses what comes later.

    Args:
        name: of the outbox.
        dsn: of its database.
        schema: of its tables.
        hint: is set at each hint.
        heard: counts them.
        pause_max_seconds: longest pause between attempts to connect.
    """

    def __init__(
        self,
        name: str,
        dsn: str,
        schema: str | None,
        *,
        hint: asyncio.Event,
        heard: Counter,
        pause_max_seconds: float,
    ) -> None:
        self._url = make_url(dsn)
        self._application = f"relay-{name}-listen"
        self._name = name
        self._schema = schema
        self._hint = hint
        self._heard = heard
        self._longest = pause_max_seconds
        self._lost = 0

    async def run(self) -> None:
        """Listen for ever, or until it is known that nothing can be heard; never raises."""
        while True:
            try:
                connection = await connect(self._url, self._application)
                async with connection:
                    if not await self._audible(connection):
                        _log.warning(
                            "wake-up hints for outbox %s do not arrive (is there a pooler in "
                            "transaction mode?); it is polled",
                            self._name,
                        )
                        return
                    await self._listen(connection)
            except _LOST as error:
                self._lost += 1
                if self._lost == 1:
                    _log.warning(
                        "wake-up hints for outbox %s are not heard (%s)",
                        self._name,
                        type(error).__name__,
                    )
            # What was said meanwhile was not heard.
            self._hint.set()
            await asyncio.sleep(min(self._longest, _FIRST_PAUSE * 2 ** min(self._lost - 1, 20)))

    async def _audible(self, connection: Connection) -> bool:
        await connection.execute(listen(self._schema), prepare=False)
        probe = f"probe {uuid4()}"
        async with await connect(self._url, self._application) as other:
            await other.execute(NOTIFY, (channel(self._schema), probe), prepare=False)
        heard = False
        until = time.monotonic() + _PROBE_SECONDS
        while not heard and (left := until - time.monotonic()) > 0:
            # To its end: a generator that is left keeps the connection to itself.
            async for said in connection.notifies(timeout=left, stop_after=1):
                heard = heard or said.payload == probe
        return heard

    async def _listen(self, connection: Connection) -> None:
        if self._lost:
            _log.info("wake-up hints for outbox %s are heard again", self._name)
        self._lost = 0
        self._hint.set()
        async for said in connection.notifies():
            if not said.payload.startswith("probe "):
                self._heard.inc()
                self._hint.set()
