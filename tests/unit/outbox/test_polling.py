"""What a member of a group does when it is rebalanced amid a batch, and when no broker answers."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from lethe_outbox.consumer import polling
from lethe_outbox.consumer.polling import Done, GroupPoller, PollSettings, Progress
from lethe_outbox.metrics import ConsumerMetrics

PARTITION = TopicPartition("topic", 0)
STEP = 64
NO_POSITIONS = SimpleNamespace(
    subscription=SimpleNamespace(assignment=SimpleNamespace(state_value=lambda _partition: None))
)


@dataclass(frozen=True, slots=True)
class Consumed:
    offset: int
    serialized_key_size: int = 1
    serialized_value_size: int = 1
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Rebalancing:
    """Stands for a consumer that goes back to what is committed whenever a rebalance gets through.

    A rebalance begins while the second step of a batch is taken, as it does in the background.
    """

    def __init__(self) -> None:
        self.poller: GroupPoller | None = None
        self.position = STEP
        self.committed = 0
        self.steps = 0
        self.rebalance: asyncio.Task[None] | None = None
        self._subscription = NO_POSITIONS

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Consumed]]:
        self.steps += 1
        if self.rebalance is not None and timeout_ms:
            # As aiokafka does: nothing is given until a rebalance that began is over.
            await self.rebalance
        if self.steps == 2:
            self.rebalance = asyncio.create_task(self._rebalance())
            for _ in range(5):
                await asyncio.sleep(0)
        taken = [Consumed(self.position + number) for number in range(max_records)]
        self.position += max_records
        return {PARTITION: taken}

    async def _rebalance(self) -> None:
        assert self.poller is not None
        await self.poller.on_partitions_revoked([PARTITION])
        self.position = self.committed

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.committed = offsets[PARTITION]

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset([PARTITION])

    def highwater(self, partition: TopicPartition) -> None:
        del partition


def polled_by(consumer: Rebalancing, settings: PollSettings) -> list[list[int]]:
    """Give it a poller; the offsets of each batch that is worked on are told here."""
    batches: list[list[int]] = []

    async def work(
        polled: Mapping[TopicPartition, Sequence[Any]],
    ) -> Mapping[TopicPartition, Progress]:
        batches.append([one.offset for one in polled[PARTITION]])
        return {PARTITION: Done(polled[PARTITION][-1].offset + 1)}

    metrics = ConsumerMetrics(CollectorRegistry())
    consumer.poller = GroupPoller("nowhere:9", "group", ["topic"], work, metrics, settings=settings)
    return batches


async def test_a_rebalance_waits_for_the_batch_that_is_being_taken() -> None:
    consumer = Rebalancing()
    batches = polled_by(consumer, PollSettings(batch_records=3 * STEP))
    assert consumer.poller is not None
    for _ in range(3):
        await consumer.poller._poll(consumer, asyncio.Event())
    assert consumer.rebalance is not None
    await consumer.rebalance
    handled = [offset for batch in batches for offset in batch]
    assert handled == sorted(set(handled)), "later records before earlier ones"


class Reassigned(Rebalancing):
    """Stands for a consumer that is rebalanced while it waits for a record, which then comes.

    As aiokafka does, it gives nothing until the rebalance is over.
    """

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Consumed]]:
        del timeout_ms, max_records
        self.steps += 1
        if self.steps > 1:
            return {}
        self.rebalance = asyncio.create_task(self._rebalance())
        await self.rebalance
        return {PARTITION: [Consumed(self.position)]}


async def test_a_record_that_comes_amid_a_rebalance_does_not_stop_both_for_ever() -> None:
    consumer = Reassigned()
    batches = polled_by(consumer, PollSettings())
    assert consumer.poller is not None
    async with asyncio.timeout(3):
        await consumer.poller._poll(consumer, asyncio.Event())
    assert batches == [[0]]


class Overtaken(Rebalancing):
    """Stands for a consumer that is rebalanced just after it gave its first records."""

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Consumed]]:
        del max_records
        if not timeout_ms:
            return {}
        if self.rebalance is None:
            self.rebalance = asyncio.create_task(self._rebalance())
        taken = [Consumed(self.position)]
        self.position += 1
        return {PARTITION: taken}


async def test_what_was_taken_before_a_rebalance_is_left_to_whoever_reads_it_again() -> None:
    consumer = Overtaken()
    batches = polled_by(consumer, PollSettings())
    assert consumer.poller is not None
    for _ in range(3):
        await consumer.poller._poll(consumer, asyncio.Event())
    assert batches == [[0], [1]]


class Silent:
    """Stands for a consumer whose broker is gone: nothing comes, and it does not stop by itself.

    The step named `hanging` waits for ever, as a first assignment, a rebalance and a commit do.
    """

    def __init__(self, error: Exception | None = None, hanging: str = "") -> None:
        self._error = error
        self._hanging = hanging
        self._client = SimpleNamespace(send=None)
        self._coordinator = SimpleNamespace(_do_commit_offsets=None)
        self._subscription = NO_POSITIONS
        self.hangs = asyncio.Event()
        self.may_stop = asyncio.Event()

    def subscribe(self, topics: object, *, listener: object) -> None:
        del topics, listener

    async def start(self) -> None:
        await self._step("start")

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset([PARTITION])

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Consumed]]:
        del max_records
        if self._error is not None:
            raise self._error
        await self._step("getmany")
        return {PARTITION: [Consumed(0)]} if timeout_ms else {}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        del offsets
        await self._step("commit")

    def highwater(self, partition: TopicPartition) -> None:
        del partition

    async def stop(self) -> None:
        await self.may_stop.wait()

    async def _step(self, name: str) -> None:
        if name == self._hanging:
            self.hangs.set()
            await asyncio.Event().wait()


class Stumbling(Silent):
    """Stands for a consumer that gets a record each time before its broker fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._errors = error
        self._given = False

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Consumed]]:
        if not timeout_ms:
            return {}
        self._given = not self._given
        if not self._given:
            raise self._errors
        return await super().getmany(timeout_ms=timeout_ms, max_records=max_records)


class Idle(Silent):
    """Stands for a consumer that nothing comes for, whose broker fails after each answer."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._fails = error
        self._was_asked = False
        self.questions = 0

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Consumed]]:
        del timeout_ms, max_records
        if self._was_asked:
            self._was_asked = False
            raise self._fails
        return {}

    async def topics(self) -> set[str]:
        self._was_asked = True
        self.questions += 1
        return {"topic"}


Told = asyncio.Queue[tuple[str, str]]


def poller_of(
    consumer: Silent, monkeypatch: pytest.MonkeyPatch, settings: PollSettings
) -> tuple[GroupPoller, Told]:
    """Give it a poller, whose brokers answer until the consumer hangs, and what that tells."""
    told = Told()

    async def counts(bootstrap: str, topics: Sequence[str]) -> dict[str, int]:
        del bootstrap
        if consumer.hangs.is_set():
            raise KafkaConnectionError
        return dict.fromkeys(topics, 1)

    async def work(
        polled: Mapping[TopicPartition, Sequence[Any]],
    ) -> Mapping[TopicPartition, Progress]:
        return {partition: Done(records[-1].offset + 1) for partition, records in polled.items()}

    monkeypatch.setattr(polling, "AIOKafkaConsumer", lambda **_: consumer)
    monkeypatch.setattr(polling, "partition_counts", counts)
    poller = GroupPoller(
        "nowhere:9",
        "group",
        ["topic"],
        work,
        ConsumerMetrics(CollectorRegistry()),
        settings=settings,
        on_state=lambda state, name: told.put_nowait((state, name)),
    )
    return poller, told


@pytest.mark.parametrize("error", [TimeoutError(), KafkaConnectionError(), OSError()], ids=repr)
async def test_a_broker_that_does_not_answer_is_told_before_the_stop_which_may_take_its_time(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, stop = Silent(error), asyncio.Event()
    poller, told = poller_of(consumer, monkeypatch, PollSettings())
    running = asyncio.create_task(poller.run(stop))
    async with asyncio.timeout(3):
        assert await told.get() == ("ok", "")
        assert await told.get() == ("away", type(error).__name__)
    stop.set()
    consumer.may_stop.set()
    await running


@pytest.mark.parametrize("step", ["start", "getmany", "commit"])
async def test_a_broker_that_goes_away_amid_a_step_that_waits_for_ever_is_told(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, stop = Silent(hanging=step), asyncio.Event()
    consumer.may_stop.set()
    poller, told = poller_of(consumer, monkeypatch, PollSettings(idle_seconds=0.01))
    running = asyncio.create_task(poller.run(stop))
    async with asyncio.timeout(3):
        while (found := await told.get()) == ("ok", ""):
            pass
    assert found == ("away", "KafkaConnectionError")
    stop.set()
    await running


@pytest.mark.parametrize("step", ["start", "getmany"])
async def test_a_stop_does_not_wait_for_what_no_broker_ends(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, stop = Silent(hanging=step), asyncio.Event()
    consumer.may_stop.set()
    # So long that it is not a question to the broker which ends it.
    poller, _ = poller_of(consumer, monkeypatch, PollSettings(idle_seconds=600))
    running = asyncio.create_task(poller.run(stop))
    await consumer.hangs.wait()
    stop.set()
    async with asyncio.timeout(3):
        await running


async def test_who_is_told_to_stop_asks_no_broker_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away would be waited for, `answer_seconds` long."""
    consumer, stop = Silent(hanging="getmany"), asyncio.Event()
    poller, told = poller_of(consumer, monkeypatch, PollSettings())
    asked = asyncio.Event()

    async def ask(_: object) -> None:
        asked.set()

    monkeypatch.setattr(poller, "_ask_when_idle", ask)
    stop.set()
    async with asyncio.timeout(3):
        await poller._poll(consumer, stop)
    assert told.empty()
    assert not asked.is_set()


async def pauses_of(
    poller: Any,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    *,
    after: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """Give the first pauses that the poller would make; `after` is told the number of each."""
    stop, pauses = asyncio.Event(), list[float]()

    async def wait(_: asyncio.Event, seconds: float) -> None:
        pauses.append(seconds)
        after(len(pauses))
        if len(pauses) == count:
            stop.set()

    monkeypatch.setattr(polling, "_wait", wait)
    async with asyncio.timeout(3):
        await poller.run(stop)
    return pauses


async def test_a_broker_that_stumbles_now_and_then_is_waited_for_as_the_first_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it was away for since it was last well decides, not how often it ever was."""
    consumer = Stumbling(KafkaConnectionError())
    consumer.may_stop.set()
    poller, _ = poller_of(consumer, monkeypatch, PollSettings())

    def is_gone_after_the_fourth(number: int) -> None:
        if number == 4:
            consumer.hangs.set()

    pauses = await pauses_of(poller, monkeypatch, 6, after=is_gone_after_the_fourth)
    assert pauses == [0.2, 0.2, 0.2, 0.2, 0.4, 0.8]


async def test_a_broker_that_answers_while_nothing_comes_is_well_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = Idle(KafkaConnectionError())
    consumer.may_stop.set()
    poller, _ = poller_of(consumer, monkeypatch, PollSettings(idle_seconds=0.001))
    assert await pauses_of(poller, monkeypatch, 3) == [0.2, 0.2, 0.2]


async def test_a_broker_is_asked_once_for_each_time_in_which_nothing_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer: Any = Idle(KafkaConnectionError())
    poller, _ = poller_of(consumer, monkeypatch, PollSettings(idle_seconds=600))
    poller._heard = asyncio.get_running_loop().time()
    await poller._ask_when_idle(consumer)
    assert consumer.questions == 0
    poller._heard -= 600
    await poller._ask_when_idle(consumer)
    await poller._ask_when_idle(consumer)
    assert consumer.questions == 1


async def test_a_broker_that_lets_join_and_answers_nothing_else_is_asked_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = Silent(KafkaConnectionError())
    consumer.may_stop.set()
    poller, _ = poller_of(consumer, monkeypatch, PollSettings(longest_pause=1))
    assert await pauses_of(poller, monkeypatch, 5) == [0.2, 0.4, 0.8, 1, 1]
