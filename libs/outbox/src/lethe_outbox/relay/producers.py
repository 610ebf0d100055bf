"""The relay's producers: how a broken one is replaced, and how trouble of one lane stays its own.

A producer is replaced rather than repaired. After a refused batch its sequence numbers have a hole,
after a timeout nobody knows what the broker holds, and an idempotent producer of aiokafka repeats a
batch for ever: each ends in a new producer, under which what is not surely stored is sent again.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from lethe_outbox.kafka.brokers import Bootstrap, client_arguments
from lethe_outbox.kafka.clients import started
from lethe_outbox.relay.producer import BrokenError, Producer
from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.settings import RelaySettings

_FIRST_PAUSE: Final = 0.25
_log = logging.getLogger(__name__)


class Producers:
    """Gives the current producer and replaces it when it is spent.

    Args:
        bootstrap: the brokers.
        settings: of the relay.
        idempotent: whether the broker sorts out repetitions; off, a refusal leaves no hole behind.
        reach: told what was taken and what was not.
    """

    def __init__(
        self, bootstrap: Bootstrap, settings: RelaySettings, *, idempotent: bool, reach: Reach
    ) -> None:
        self._bootstrap = bootstrap
        self._settings = settings
        self._idempotent = idempotent
        self._reach = reach
        self._current: Producer | None = None
        self._starting = asyncio.Lock()
        self._failures = 0
        self._told_apart = 0
        self._shared: Producers | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def apart(self) -> Iterator["Producers"]:
        """Give producers for what these did not get through, so that nobody else waits for it.

        Nothing is connected before one is asked for. Whether there is a broker at all is asked
        here, once for all.
        """
        own = Producers(
            self._bootstrap, self._settings, idempotent=self._idempotent, reach=self._reach
        )
        own._shared = self
        own._failures = 1
        own._closing = self._closing
        try:
            yield own
        finally:
            if own._current is not None:
                own.retire(own._current)

    async def current(self) -> Producer:
        """Give a connected producer, waiting as long as no broker can be reached."""
        if self._current is not None:
            return self._current
        async with self._starting:
            while self._current is None:
                if self._failures:
                    await asyncio.sleep(self._pause())
                if self._shared is not None:
                    await self._shared.current()
                self._current = await self._start()
        return self._current

    def retire(self, producer: Producer) -> None:
        """Use another producer from now on; this one finishes what it has."""
        if producer is self._current:
            self._current = None
            self._in_background(producer.stop())

    def discard(self, producer: Producer, error_class: str) -> None:
        """Use another producer from now on, after a growing pause; this one is cut off."""
        if producer is not self._current:
            return
        self._current = None
        self._failed(error_class)
        self._in_background(producer.abort())

    def give_up(self, producer: Producer, broken: BrokenError) -> None:
        """Use another producer from now on; what `broken` is about is sent by another one.

        If it was just late, what others have in this producer goes on.
        """
        if self._shared is not None or not broken.late:
            self.discard(producer, broken.error_class)
            return
        self._reach.untaken(broken.error_class)
        if producer is self._current:
            # Once for all lanes whose batches hang in it.
            _log.warning("not taken in its time (%s), so it is sent apart", broken.error_class)
            self.retire(producer)

    def unreachable(self, error_class: str) -> None:
        """Note that who sends apart reaches no broker: nobody does, until this connects anew."""
        if self._current is not None:
            self.discard(self._current, error_class)

    def is_news(self, attempt: int) -> bool:
        """Whether no lane that sends apart came to this attempt since anything was taken."""
        is_news = attempt > self._told_apart
        self._told_apart = max(attempt, self._told_apart)
        return is_news

    def succeeded(self) -> None:
        """Note that a broker took something."""
        self._failures = self._told_apart = 0
        self._reach.taken()

    async def close(self) -> None:
        """Disconnect everything, what is on its way included."""
        self._reach.close()
        if self._current is not None:
            self._in_background(self._current.stop())
            self._current = None
        if self._closing:
            await asyncio.wait(set(self._closing))

    def _pause(self) -> float:
        longest = self._settings.pause_max_seconds
        return float(min(longest, _FIRST_PAUSE * 2 ** min(self._failures - 1, 20)))

    def _failed(self, error_class: str) -> None:
        self._failures += 1
        if self._shared is None:
            self._reach.away(error_class)
            self._tell("broker away", error_class)
            return
        self._reach.untaken(error_class)
        if self._shared.is_news(self._failures):
            self._tell("a partition takes nothing", error_class)

    def _tell(self, what: str, error_class: str) -> None:
        _log.warning(
            "%s (%s), attempt %d, next in %.2f s", what, error_class, self._failures, self._pause()
        )

    async def _start(self) -> Producer | None:
        kafka = AIOKafkaProducer(
            **client_arguments(self._bootstrap),
            acks="all",
            enable_idempotence=self._idempotent,
            linger_ms=0,
            max_batch_size=self._settings.batch_bytes,
            max_request_size=self._settings.largest_record_bytes,
            compression_type=self._settings.compression,
            request_timeout_ms=int(self._settings.publish_seconds * 1000),
        )
        producer = Producer(kafka, self._settings)
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                await started(kafka)
        except (KafkaError, OSError, TimeoutError) as error:
            if self._shared is None:
                self._failed(type(error).__name__)
            else:
                self._shared.unreachable(type(error).__name__)
            await producer.abort()
            return None
        except BaseException:
            # Cancelled, too, it leaves connections and tasks of its own.
            await producer.abort()
            raise
        if not self._failures:
            self._reach.connected()
        elif self._shared is None:
            # Nothing may be left to publish after which the next pause is a short one again.
            calm = 2 * self._settings.publish_seconds
            asyncio.get_running_loop().call_later(calm, self._calm, producer)
        return producer

    def _calm(self, producer: Producer) -> None:
        if producer is self._current:
            self._failures = 0

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
