"""One simulated run: writers, relays, faults, and the checker's verdict."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay import Relay, RelaySettings, relay, settings
from lethe_outbox.relay.producers import Producers
from lethe_outbox.schema import Status
from tests.support.outbox_checker import StreamedOrder
from tests.support.simulation.broker import Broker, Producer
from tests.support.simulation.database import BUCKETS, TOPIC, Database, Leases, Session, Storage
from tests.support.simulation.world import World

LANES: Final = 4
FAULTS: Final = (
    *("kill", "freeze", "stop", "cut", "freeze and cut"),
    *("broker away", "partition away"),
)
_LEASE: Final = 5.0
_CALM: Final = 60.0
_KEYS: Final = 24
_WRITERS: Final = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was wrong, and what was seen."""

    problems: list[str]
    rows: int
    records: int
    repetitions: int
    faults: Counter[str]


class _Idle:
    """Stands where a loop works that the model has nothing for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def run(self, *_: Any) -> None:
        await asyncio.Event().wait()


class _Process:
    """A relay with a loop of its own."""

    def __init__(self, simulation: "Simulation") -> None:
        self.loop = simulation.world.loop()
        self.session: Session | None = None
        with self.loop.running():
            self.stop = asyncio.Event()
            real = Relay(
                "simulated",
                "postgresql://",
                "",
                metrics=RelayMetrics(CollectorRegistry()),
                settings=simulation.settings,
            )
            self.task = self.loop.create_task(real.run(self.stop))

    @property
    def is_over(self) -> bool:
        return self.loop.dead or self.task.done()

    def cut(self) -> None:
        if self.session is not None:
            self.session.alive = False


@dataclass
class Simulation:
    """Everything of one run but its end."""

    seed: int
    relays: int = 2
    processes: list[_Process] = field(default_factory=list)
    written: Counter[str] = field(default_factory=Counter)
    refused: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    faults: Counter[str] = field(default_factory=Counter)
    calm: bool = False

    def __post_init__(self) -> None:
        self.world = World(self.seed)
        self.random = self.world.random
        self.database = Database(self.world)
        self.broker = Broker(self.world, LANES)
        self.settings = RelaySettings(
            lanes=LANES,
            lease_seconds=_LEASE,
            renew_seconds=1,
            margin_seconds=0.5,
            publish_seconds=3,
            sweep_seconds=10,
            pause_max_seconds=2,
            listen=False,
            fresh_ids=self.random.choice((1, 20, 1000)),
            ids_per_fetch=self.random.choice((20, 500, 100_000)),
            rows_per_bucket=self.random.choice((3, 10, 125)),
            rows_per_acknowledgement=self.random.choice((5, 1000)),
        )

    def run(self, seconds: float) -> Verdict:
        """Write and break things for `seconds`, let everything end, and judge."""
        with self._modelled():
            outside = self.world.outside
            for number in range(_WRITERS):
                keys = [f"key-{key}" for key in range(number, _KEYS, _WRITERS)]
                outside.create_task(self._write(keys, random.Random(self.seed * 10 + number)))  # noqa: S311 - repeated by its seed
            outside.create_task(self._break())
            self.world.run(seconds)
            self.calm = True
            # Whoever was frozen, or asked to stop, comes to its end; then nobody is disturbed.
            self.world.run(2 * _LEASE)
            self.start()
            self.world.run(_CALM)
            verdict = self._judge()
            self.world.close()
        return verdict

    def start(self) -> None:
        """Start as many relays as are missing."""
        self.processes = [process for process in self.processes if not process.is_over]
        while len(self.processes) < self.relays:
            self.processes.append(_Process(self))

    async def _write(self, keys: Sequence[str], chance: random.Random) -> None:
        """Transactions of keys that nobody else writes: quick, slow, rolled back."""
        while not self.calm:
            await asyncio.sleep(chance.random() * 0.008)
            last = Counter(self.written)
            writer = self.database.begin()
            events: list[tuple[str, int, bool]] = []
            poisoned = chance.random() < 0.002
            for _ in range(chance.choice((1, 2, 5, 12))):
                key = chance.choice(keys)
                last[key] += 1
                events.append((key, last[key], poisoned and not events))
                self.database.insert(writer, key, last[key], poison=events[-1][2])
                if chance.random() < 0.1:
                    await asyncio.sleep(chance.random() * 0.01)
            if chance.random() < 0.04:
                await asyncio.sleep(chance.uniform(0.02, 1.5))
            committed = chance.random() > 0.02
            self.database.end(writer, commit=committed)
            for key, number, poison in events if committed else ():
                self.written[key] = number
                if poison:
                    self.refused[key].add(number)

    async def _break(self) -> None:
        while not self.calm:
            self.start()
            await asyncio.sleep(self.random.uniform(0.5, 3))
            fault = self.random.choice(FAULTS)
            self.faults[fault] += 1
            await self._do(fault, self.random.choice(self.processes))

    async def _do(self, fault: str, process: _Process) -> None:
        match fault:
            case "kill":
                process.loop.dead = True
                # Its sessions end when the server notices.
                self.world.later(self.random.choice((0.0, 0.01, 0.3)), process.cut)
            case "stop":
                process.loop.tell(process.stop.set)
            case "cut":
                self._cut_all()
            case "broker away":
                self.broker.away_until = self.world.now + self.random.uniform(0.5, 6)
            case "partition away":
                until = self.world.now + self.random.uniform(0.5, 12)
                self.broker.partition_away_until[self.random.randrange(LANES)] = until
            case _:
                process.loop.frozen = True
                await asyncio.sleep(self.random.uniform(0.1, 1.5) * _LEASE)
                process.loop.frozen = False
                if fault == "freeze and cut":
                    await asyncio.sleep(self.random.random() * self.random.choice((0, 0.05, 1)))
                    self._cut_all()

    def _cut_all(self) -> None:
        for process in self.processes:
            process.cut()

    @contextmanager
    def _modelled(self) -> Iterator[None]:
        """Put the model where relays meet PostgreSQL and Kafka."""

        def session(*_: Any) -> Session:
            process = self._running()
            process.session = Session(self.database, process.loop)
            return process.session

        async def start(producers: Producers) -> Producer:
            await asyncio.sleep(self.world.soon() * 5)
            loop = self._running().loop
            return Producer(self.broker, loop, idempotent=producers._idempotent)

        with (
            patch.multiple(
                relay,
                Session=session,
                RelayStorage=Storage,
                LeaseStorage=Leases,
                Sampler=_Idle,
                Janitor=_Idle,
            ),
            patch.object(Producers, "_start", start),
            patch.object(settings, "BUCKETS", BUCKETS),
        ):
            yield

    def _running(self) -> _Process:
        loop: object = asyncio.get_running_loop()
        return next(process for process in self.processes if process.loop is loop)

    def _judge(self) -> Verdict:
        order = StreamedOrder(self.refused)
        for (topic, partition), records in self.broker.records.items():
            if topic == TOPIC.decode():
                for key, value in records:
                    order.see(key, int(value.partition(b":")[0]), partition)
        problems = order.judge(self.written)
        pending = sum(map(len, self.database.pending.values()))
        if pending:
            problems.append(f"{pending} rows still pending")
        dead = sum(row.status is Status.DEAD_LETTERED for row in self.database.rows.values())
        if dead != sum(map(len, self.refused.values())):
            problems.append(f"{dead} rows dead")
        if self.database.stragglers:
            problems.append("a pending row was below a low-water mark")
        problems += [f"ended by {end}" for end in map(_end_of, self.processes) if end]
        return Verdict(
            problems, len(self.database.rows), order.records, order.repetitions, self.faults
        )


def _end_of(process: _Process) -> str | None:
    if process.task.done() and not process.task.cancelled():
        error = process.task.exception()
        return None if error is None else type(error).__name__
    return None
