"""Polling a consumer group: joining, waiting for the broker, pausing, committing; never resetting.

`Work` handles the records and answers, per partition, how far it came. A partition to be tried
again is rewound and paused while the others go on, and polling on keeps the group membership.
Nothing is held in memory between two attempts.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from lethe_outbox.consumer.attending import Attendant
from lethe_outbox.consumer.membership import commit_as_member
from lethe_outbox.consumer.taking import Taker, share_of_partition
from lethe_outbox.errors import ArgumentError, OffsetsLostError
from lethe_outbox.kafka.brokers import Bootstrap, client_arguments
from lethe_outbox.kafka.clients import started, stopped
from lethe_outbox.kafka.dead_letter_topic import RELAY_PREFIX
from lethe_outbox.kafka.offset_answers import hearing_refusals
from lethe_outbox.kafka.topics import partition_counts
from lethe_outbox.metrics import ConsumerMetrics
from lethe_outbox.ranges import wrong_number

_log: Final = logging.getLogger(__name__)

_METADATA_SECONDS: Final = 30.0
"""How soon a topic that was created again is noticed; aiokafka's default is five minutes."""

_AWAY: Final = (KafkaError, OSError, TimeoutError)

State = Literal["ok", "away"]
OnState = Callable[[State, str], None]
OnAssigned = Callable[[frozenset[int]], None]


@dataclass(frozen=True, slots=True)
class PollSettings:
    """How a group is polled. Times in seconds, sizes in bytes.

    Raises:
        ArgumentError: a number makes no sense, or the longest pause is shorter than the first.
    """

    batch_records: int = 500
    batch_bytes: int = 8 * 1024 * 1024
    """A batch that reached so many bytes is not added to; a larger record is a batch of its own."""
    fetch_bytes: int = 8 * 1024 * 1024
    """Most bytes in one response of a broker."""
    buffer_bytes: int = 32 * 1024 * 1024
    """Fetched ahead over all partitions, as it comes over the wire; at least 16 KiB each."""
    poll_seconds: float = 0.5
    first_pause: float = 0.1
    longest_pause: float = 30.0
    session_seconds: float = 10.0
    """A member that is silent for so long is taken for dead, and its partitions go to others."""
    idle_seconds: float = 5.0
    """With nothing heard for so long (a record, an assignment, the answer to a commit), the brokers
    are asked whether they are there at all."""
    answer_seconds: float = 10.0
    """How long they may take to answer that."""

    def __post_init__(self) -> None:
        wrong = wrong_number(self)
        if wrong is not None:
            raise ArgumentError(wrong)
        if self.longest_pause < self.first_pause:
            raise ArgumentError("longest_pause must not be below first_pause")

    def pause(self, failures: int) -> float:
        """Give the pause after that many failures in a row; it doubles up to `longest_pause`."""
        return min(self.first_pause * 2.0 ** min(failures - 1, 30), self.longest_pause)


@dataclass(frozen=True, slots=True)
class Done:
    """Everything before `next_offset` is dealt with for good."""

    next_offset: int


@dataclass(frozen=True, slots=True)
class Again:
    """Try again from `offset`, after a pause that grows; what stands before it is dealt with."""

    offset: int


Progress = Done | Again


class Work(Protocol):
    """Deals with polled records."""

    async def __call__(
        self, polled: Mapping[TopicPartition, Sequence[Any]]
    ) -> Mapping[TopicPartition, Progress]:
        """Say for each partition how far it is dealt with; raises only what is a defect."""
        ...


@dataclass(frozen=True, slots=True)
class _Found:
    """The first records of a batch, and how many rebalances there had been then.

    After another one they are dropped: they are read again from the committed offset.
    """

    records: Mapping[TopicPartition, Sequence[Any]]
    rebalances: int


@dataclass(slots=True)
class _Paused:
    until: float
    failures: int


@dataclass(slots=True)
class _Pauses:
    """Which partitions stand still, and until when (event-loop time)."""

    settings: PollSettings
    paused: dict[TopicPartition, _Paused] = field(default_factory=dict)

    def pause(self, partition: TopicPartition, now: float) -> None:
        failures = self.paused[partition].failures + 1 if partition in self.paused else 1
        self.paused[partition] = _Paused(now + self.settings.pause(failures), failures)

    def due(self, now: float) -> list[TopicPartition]:
        return [one for one, paused in self.paused.items() if paused.until <= now]


class GroupPoller(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka carries no types
    """Polls `topics` as a member of `group` until it is told to stop.

    Args:
        bootstrap: the brokers.
        group: the consumer group, initialised before by `groups.initialise_group`.
        topics: what is subscribed.
        work: deals with the records.
        metrics: lag and lost offsets are told here.
        settings: see `PollSettings`.
        on_assigned: told the numbers of the partitions of the first topic whenever they change.
        on_state: told whether the brokers answer.
        on_rebalance: told when the partitions may have become somebody else's.

    Raises:
        ArgumentError: no topic is named, or the group as a relay is.
    """

    def __init__(
        self,
        bootstrap: Bootstrap,
        group: str,
        topics: Sequence[str],
        work: Work,
        metrics: ConsumerMetrics,
        *,
        settings: PollSettings,
        on_assigned: OnAssigned | None = None,
        on_state: OnState | None = None,
        on_rebalance: Callable[[], None] | None = None,
    ) -> None:
        if not topics or isinstance(topics, str):
            raise ArgumentError("topics must be a list of one topic at least")
        if not group or group.startswith(RELAY_PREFIX):
            raise ArgumentError(
                f"group must have a name that does not begin with {RELAY_PREFIX}: dead letters tell"
                " by it that they come from a relay"
            )
        self._bootstrap = bootstrap
        self._group = group
        self._topics = tuple(topics)
        self._work = work
        self._metrics = metrics
        self._settings = settings
        self._on_assigned = on_assigned
        self._on_state = on_state
        self._pauses = _Pauses(settings)
        self._taker = Taker(settings)
        self._on_rebalance = on_rebalance
        self._attendant = Attendant(
            self._count_partitions, settings.idle_seconds, settings.answer_seconds
        )
        self._working = asyncio.Lock()
        self._rebalances = 0
        self._heard = 0.0
        self._partitions = 0
        self._failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until `stop`; wait out whatever the broker does.

        With lost offsets it stands still, tells `on_state` and the metric, and waits for `stop`.

        Raises:
            OffsetsLostError: the group had no offset for a partition, or one outside the log.
        """
        self._metrics.offsets_lost.labels(group=self._group).set(0)
        while not stop.is_set():
            try:
                await self._member(stop)
            except (NoOffsetForPartitionError, OffsetOutOfRangeError) as error:
                lost = self._lost(error)
                # The process stays, not ready, so that the gauge is seen and somebody comes.
                await stop.wait()
                raise lost from error
            except _AWAY as error:
                self._failures += 1
                name = type(error).__name__
                self._tell("away", name)
                # Of all partitions, so one step longer than that of a single one.
                pause = self._settings.pause(self._failures + 1)
                _log.warning(
                    "group %s: broker away (%s), trying again in %.1f s", self._group, name, pause
                )
                await _wait(stop, pause)

    async def _member(self, stop: asyncio.Event) -> None:
        await self._attendant.done(self._count_partitions(), unless=stop)
        if stop.is_set():
            return
        consumer = hearing_refusals(self._consumer())
        self._pauses.paused.clear()
        consumer.subscribe(self._topics, listener=self)
        try:
            await self._attendant.done(started(consumer), unless=stop)
            if stop.is_set():
                return
            commit_as_member(consumer)
            self._tell("ok", "")
            self._heard = asyncio.get_running_loop().time()
            while not stop.is_set():
                await self._poll(consumer, stop)
        except _AWAY as error:
            # Told before the stop, which may take its time.
            self._tell("away", type(error).__name__)
            raise
        finally:
            await stopped(consumer)
            self._assigned(())

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **client_arguments(self._bootstrap),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            # What a producer took back by aborting its transaction never happened.
            isolation_level="read_committed",
            fetch_max_bytes=self._settings.fetch_bytes,
            max_partition_fetch_bytes=share_of_partition(self._settings, self._partitions),
            session_timeout_ms=int(self._settings.session_seconds * 1000),
            heartbeat_interval_ms=int(self._settings.session_seconds * 100),
            metadata_max_age_ms=int(_METADATA_SECONDS * 1000),
        )

    async def _count_partitions(self) -> None:
        counts = await partition_counts(self._bootstrap, self._topics)
        self._partitions = sum(counts.values())

    async def _poll(self, consumer: AIOKafkaConsumer, stop: asyncio.Event) -> None:
        now = asyncio.get_running_loop().time()
        assignment = consumer.assignment()
        for partition in self._pauses.due(now):
            if partition in assignment:
                consumer.resume(partition)
        # Without the lock: during a rebalance this waits for its end, which waits for the lock.
        found = await self._attendant.done(self._first(consumer), unless=stop)
        if found is None:
            return
        if found.records:
            async with self._working:
                if found.rebalances == self._rebalances:
                    await self._deal_with(consumer, found.records)
                    self._heard = now
        else:
            await self._ask_when_idle(consumer)
        self._measure(consumer)

    async def _first(self, consumer: AIOKafkaConsumer) -> _Found:
        return _Found(await self._taker.first(consumer), self._rebalances)

    async def _deal_with(
        self, consumer: AIOKafkaConsumer, first: Mapping[TopicPartition, Sequence[Any]]
    ) -> None:
        """Work on a batch that begins with `first`.

        A rebalance waits for it: it goes back to the committed offset, and would put earlier
        records behind later ones of the same batch.
        """
        polled = await self._taker.fill(consumer, first)
        self._answered()
        await self._settle(consumer, await self._work(polled))

    async def _ask_when_idle(self, consumer: AIOKafkaConsumer) -> None:
        """Raise KafkaError or TimeoutError if no broker answers: polling alone never would."""
        now = asyncio.get_running_loop().time()
        if now - self._heard >= self._settings.idle_seconds:
            async with asyncio.timeout(self._settings.answer_seconds):
                await consumer.topics()
            self._heard = now
            self._answered()

    async def _settle(
        self, consumer: AIOKafkaConsumer, progress: Mapping[TopicPartition, Progress]
    ) -> None:
        now = asyncio.get_running_loop().time()
        offsets: dict[TopicPartition, int] = {}
        for partition, reached in progress.items():
            if partition not in consumer.assignment():
                continue
            match reached:
                case Done(next_offset):
                    offsets[partition] = next_offset
                    self._pauses.paused.pop(partition, None)
                case Again(offset):
                    offsets[partition] = offset
                    consumer.seek(partition, offset)
                    consumer.pause(partition)
                    self._pauses.pause(partition, now)
        try:
            if offsets:
                await self._attendant.done(consumer.commit(offsets))
        except (CommitFailedError, IllegalStateError):
            # The group was rebalanced under us: the new owner handles these again, to no effect.
            _log.info("group %s: offsets not committed, the group was rebalanced", self._group)

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Let a batch that is under way finish before its partitions go to somebody else."""
        del revoked
        async with self._working:
            self._rebalances += 1
            self._assigned(())
            if self._on_rebalance is not None:
                self._on_rebalance()

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Start afresh with what is assigned now."""
        self._pauses.paused.clear()
        self._assigned(assigned)

    def _assigned(self, assigned: Sequence[TopicPartition]) -> None:
        if self._on_assigned is not None:
            first = self._topics[0]
            self._on_assigned(frozenset(one.partition for one in assigned if one.topic == first))

    def _measure(self, consumer: AIOKafkaConsumer) -> None:
        lag = dict.fromkeys(self._topics, 0)
        for partition in consumer.assignment():
            end, at = consumer.highwater(partition), consumer._subscription  # noqa: SLF001 - aiokafka tells a position only through a coroutine that may wait
            state = at.subscription.assignment.state_value(partition)
            if end is not None and state is not None and state.has_valid_position:
                lag[partition.topic] += max(0, end - state.position)
        for topic, records in lag.items():
            self._metrics.lag.labels(group=self._group, topic=topic).set(records)

    def _answered(self) -> None:
        """Note that the broker does its work; that it let us join is no sign of that."""
        self._failures = 0
        self._tell("ok", "")

    def _tell(self, state: State, error_class: str) -> None:
        if self._on_state is not None:
            self._on_state(state, error_class)

    def _lost(self, error: BaseException) -> OffsetsLostError:
        self._metrics.offsets_lost.labels(group=self._group).set(1)
        self._tell("away", OffsetsLostError.__name__)
        message = (
            f"group {self._group} has no usable offset ({type(error).__name__}) on "
            f"{', '.join(self._topics)}: nothing is skipped silently, so it stops. A new group is "
            "given its offsets by a migration (initialise_group); for a known one decide where it "
            "goes on"
        )
        _log.critical(message)
        return OffsetsLostError(message)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
