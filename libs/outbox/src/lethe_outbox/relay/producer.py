"""One Kafka producer of the relay: the one seam to aiokafka, and what its errors mean."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerResponseError,
    CorruptRecordException,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
from aiokafka.structs import TopicPartition

from lethe_outbox.errors import LetheOutboxError
from lethe_outbox.relay.settings import RelaySettings

REFUSALS: Final[dict[type[BaseException], str]] = {
    MessageSizeTooLargeError: "too_large",
    RecordListTooLargeError: "too_large",
    InvalidTopicError: "invalid_topic",
    TopicAuthorizationFailedError: "not_authorised",
    CorruptRecordException: "corrupt",
    UnsupportedForMessageFormatError: "unsupported",
    PolicyViolationError: "policy",
}
"""What a broker says of records it will never take, by error, and the reason that is stored."""

_BETWEEN_LOOKS: Final = 0.25
_LONGEST_BETWEEN_LOOKS: Final = 1.0
"""aiokafka logs an error with each look for a topic that is unknown."""
_NOBODY: Final = (None, -1)
_LEGAL_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_log = logging.getLogger(__name__)


class RefusedError(LetheOutboxError):
    """The broker answers and will not take a record, however often it is asked."""

    def __init__(self, reason: str, error_class: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error_class = error_class


class TopicRefusedError(RefusedError):
    """The broker answers and will not take any record for a topic."""


class BrokenError(LetheOutboxError):
    """It is not known whether the broker has the records; a new producer must send them again."""

    def __init__(self, error_class: str, *, answered: bool = False, late: bool = False) -> None:
        super().__init__(error_class)
        self.error_class = error_class
        self.answered = answered
        """Whether a broker said so, in contrast to no answer at all."""
        self.late = late
        """Whether it was just not taken in time: the trouble may be that of one partition."""


def judge(error: BaseException) -> RefusedError | BrokenError:
    """Say what an error of aiokafka means for the records it was about."""
    if isinstance(error, BrokenError):
        return error
    for refusal, reason in REFUSALS.items():
        if isinstance(error, refusal):
            return RefusedError(reason, type(error).__name__)
    # A record has the time it was packed at: it is the clocks that differ, here or at the broker.
    late = isinstance(error, TimeoutError | InvalidTimestampError) or (
        isinstance(error, KafkaError) and bool(error.retriable)
    )
    answered = isinstance(error, BrokerResponseError) and not late
    return BrokenError(type(error).__name__, answered=answered, late=late)


class Producer:
    """One connected producer of aiokafka."""

    def __init__(self, kafka: AIOKafkaProducer, settings: RelaySettings) -> None:
        self._kafka = kafka
        self._settings = settings
        self._unknown_since: dict[str, float] = {}
        self._may_leave: WeakKeyDictionary[Any, Callable[[], bool]] = WeakKeyDictionary()
        sender = kafka._sender  # noqa: SLF001 - aiokafka asks nobody before it sends
        self._send_request = sender._send_produce_req  # noqa: SLF001 - likewise
        sender._send_produce_req = self._send_in_time  # noqa: SLF001 - likewise

    def batch(self) -> Any:
        """Begin an empty batch, to be filled by its `append` and handed over."""
        return self._kafka.create_batch()

    async def partitions(self, topic: str) -> int:
        """Give how many partitions a topic has.

        Raises:
            TopicRefusedError: its name is not legal, it may not be written, or a broker that
                answers does not know it for `unknown_topic_seconds`.
            BrokenError: no broker answers.
        """
        cluster = self._kafka.client.cluster
        known = cluster.partitions_for_topic(topic)
        if known:
            self._unknown_since.pop(topic, None)
            return len(known)
        if not _LEGAL_TOPIC.fullmatch(topic) or topic in {".", ".."}:
            raise TopicRefusedError("invalid_topic", "InvalidTopicError")
        since = self._unknown_since.setdefault(topic, time.monotonic())
        self._kafka.client.add_topic(topic)
        pause = _BETWEEN_LOOKS
        while True:
            await self._refresh()
            known = cluster.partitions_for_topic(topic)
            if known:
                self._unknown_since.pop(topic, None)
                return len(known)
            if topic in cluster.unauthorized_topics:
                raise TopicRefusedError("not_authorised", "TopicAuthorizationFailedError")
            if time.monotonic() - since > self._settings.unknown_topic_seconds:
                raise TopicRefusedError("unknown_topic", "UnknownTopicOrPartitionError")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_BETWEEN_LOOKS)

    async def hand_over(
        self, batch: Any, topic: str, partition: int, may_leave: Callable[[], bool]
    ) -> "asyncio.Future[Any]":
        """Queue a closed batch; the future ends when the broker has it or will not take it.

        Args:
            batch: as begun by `batch`.
            topic: where it goes.
            partition: likewise.
            may_leave: asked at the last moment before each request that carries it; no ends the
                future with an error.

        Raises:
            BrokenError: the producer cannot take it, or the partition has no leader.
        """
        await self._find_leader(topic, partition)
        self._may_leave[batch] = may_leave
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                sent = await self._kafka.send_batch(batch, topic, partition=partition)
        except (KafkaError, AssertionError, TimeoutError) as error:
            late = isinstance(error, TimeoutError | KafkaTimeoutError)
            raise BrokenError(type(error).__name__, late=late) from error
        future: asyncio.Future[Any] = sent
        return future

    def give_up(self, batch: Any) -> None:
        """Let a batch not leave any more, unless it is on its way: another producer sends it."""
        self._may_leave[batch] = _never

    async def send(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """Send one record and wait until the broker has it.

        Raises:
            RefusedError: the broker will not take it.
            BrokenError: it is not known whether the broker has it.
        """
        await self.partitions(topic)
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                await self._kafka.send_and_wait(topic, value, key=key, headers=list(headers))
        except (KafkaError, AssertionError, TimeoutError) as error:
            raise judge(error) from error

    async def _send_in_time(self, node: int, batches: Mapping[Any, Any]) -> None:
        """Send what may still leave: this process may have been frozen since it was handed over."""
        if any(map(self._in_time, batches.values())):
            # Else aiokafka would connect between the question and the request.
            await self._kafka.client.ready(node)
        late = {place: batch for place, batch in batches.items() if not self._in_time(batch)}
        sender = self._kafka._sender  # noqa: SLF001 - see above
        for place, batch in late.items():
            batch.failure(KafkaTimeoutError("the lease ended before the batch was sent"))
            sender._muted_partitions.remove(place)  # noqa: SLF001 - see above
        if len(late) < len(batches):
            left = {place: batch for place, batch in batches.items() if place not in late}
            await self._send_request(node, left)
        else:
            sender._in_flight.remove(node)  # noqa: SLF001 - see above

    def _in_time(self, batch: Any) -> bool:
        may_leave = self._may_leave.get(batch._builder)  # noqa: SLF001 - what was handed over
        return may_leave is None or may_leave()

    async def _find_leader(self, topic: str, partition: int) -> None:
        # aiokafka would ask for metadata without a pause for as long as a batch waits for a leader.
        cluster, place = self._kafka.client.cluster, TopicPartition(topic, partition)
        if cluster.leader_for_partition(place) in _NOBODY:
            await self._refresh()
            if cluster.leader_for_partition(place) in _NOBODY:
                raise BrokenError("LeaderNotAvailableError", late=True)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                refreshed = await self._kafka.client.force_metadata_update()
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokenError(type(error).__name__) from error
        if not refreshed:
            raise BrokenError("NoBrokersAvailable")

    async def stop(self) -> None:
        """Wait for what was handed over, within the time one batch may take, and disconnect."""
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                await asyncio.shield(self._kafka.flush())
        except (KafkaError, TimeoutError):
            _log.debug("a producer is closed with batches on their way")
        await self.abort()

    async def abort(self) -> None:
        """Disconnect at once; what is on its way may or may not arrive."""
        # aiokafka has no such call: its stop() waits for batches that it repeats for ever.
        self._kafka._closed = True  # noqa: SLF001 - see above
        sender = self._kafka._sender.sender_task  # noqa: SLF001 - see above
        await self._kafka.client.close()
        while sender is not None and not sender.done():
            sender.cancel()
            await asyncio.wait({sender}, timeout=0.5)
        # The requests it awaited may have connected anew.
        await self._kafka.client.close()
        accumulator = self._kafka._message_accumulator  # noqa: SLF001 - see above
        waiting = [batch for queue in accumulator._batches.values() for batch in queue]  # noqa: SLF001 - see above
        batches = [*waiting, *accumulator._pending_batches]  # noqa: SLF001 - see above
        # The end of one that was to be sent again takes it out of there, where it is no more.
        accumulator._pending_batches.update(waiting)  # noqa: SLF001 - see above
        accumulator.fail_all(KafkaError("the producer was closed"))
        for batch in batches:
            _seen(batch.future)
            _seen(batch._drain_waiter)  # noqa: SLF001 - else asyncio reports it as forgotten


def _never() -> bool:
    return False


def _seen(future: "asyncio.Future[Any]") -> None:
    if future.done() and not future.cancelled():
        future.exception()
