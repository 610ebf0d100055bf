"""Minutes without S3 or PostgreSQL, and a full disk: the job waits, and goes on by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.engine import make_url

from lethe_contracts.events import TypeTotals
from lethe_eraser.execute import worker
from lethe_eraser.objects import ObjectStore, S3Options
from lethe_runtime import database, waiting
from lethe_sandbox.stack import S3Address, Stack
from tests.faults.eraser.audit import Before, assert_erased_once, look
from tests.integration.eraser.world import OTHER, SUBJECT, Eraser, World, put_in, until_state
from tests.support.tcp_proxy import TcpProxy, Watch
from tests.support.waiting import until

MINUTES = 5 * 60
EXPECTED = {
    "sketch": TypeTotals(feature_rows=4, task_rows=4, client_rows=4, objects_gone=8),
    "document": TypeTotals(feature_rows=1, client_rows=1, objects_gone=3),
}


@dataclass
class Patience:
    """What the executor waited, told in seconds that nobody had to wait."""

    pauses: list[float] = field(default_factory=list)

    async def pause(self, seconds: float, stop: asyncio.Event) -> bool:
        if seconds != worker.LOOK_AHEAD_SECONDS:
            self.pauses.append(seconds)
        return await waiting.pause(0.01, stop)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    found = Patience()
    monkeypatch.setattr(worker, "pause", found.pause)
    return found


@pytest.fixture
async def before(world: World) -> Before:
    """A person of several batches and kinds, whose erasure is asked for."""
    for number in range(4):
        await world.sketch(number, source="client" if number % 2 else "client_old")
    await world.document(1)
    await world.sketch(1, subject=OTHER)
    before = await look(world)
    await world.accept(world.requested())
    return before


@asynccontextmanager
async def working(eraser: Eraser) -> AsyncIterator[None]:
    """The executor, as the process runs it."""
    stop = asyncio.Event()
    running = asyncio.create_task(eraser.executor.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


def once(eraser: Eraser, step: str, do: Any) -> None:
    """Let `do` happen before the second call of a step of the batches."""
    real = getattr(eraser.batches, step)
    calls: list[str] = []

    async def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(step)
        if len(calls) == 2:
            await do()
        return await real(*args, **kwargs)

    put_in(eraser.batches, step, call)


def away(eraser: Eraser, dependency: str) -> bool:
    return eraser.readiness.report().dependencies[dependency].status == "away"


async def test_minutes_without_s3(
    world: World, before: Before, s3: S3Address, patience: Patience
) -> None:
    there = urlsplit(s3.endpoint)
    proxy = TcpProxy(there.hostname or "", there.port or 0)
    async with proxy.running():
        options = S3Options(
            region=s3.region,
            endpoint_url=f"http://127.0.0.1:{proxy.port}",
            access_key_id=s3.access_key_id,
            secret_access_key=SecretStr(s3.secret_access_key),
            threads=4,
            breaker_seconds=0.05,
        )
        async with ObjectStore(options, world.catalog.buckets, wait_seconds=0.001) as store:
            eraser = world.eraser(batch_rows=2, objects=store)

            async def cut() -> None:
                proxy.close()

            once(eraser, "delete", cut)
            async with working(eraser):
                await until(
                    lambda: sum(patience.pauses) > MINUTES, within=120, what="minutes of waiting"
                )
                assert away(eraser, "s3")
                assert max(patience.pauses) <= worker.LONGEST_BACKOFF
                proxy.open()
                await until_state(world, "verified", within=120)
    assert await world.value("select attempts from lethe.job") == 0
    await assert_erased_once(world, before, SUBJECT, EXPECTED)


@asynccontextmanager
async def through(
    world: World, url: str, watch: Callable[[], Watch] | None = None
) -> AsyncIterator[tuple[World, TcpProxy]]:
    """The world as an eraser sees it whose way to PostgreSQL may be cut."""
    there = make_url(url)
    proxy = TcpProxy(there.host or "", there.port or 5432, watch)
    async with proxy.running():
        ours = there.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        engine = database.create_engine(ours, application_name="test", pool_size=10)
        async with database.disposing(engine):
            yield replace(world, engine=engine), proxy


@pytest.mark.parametrize("step", ["collect", "intend", "delete", "mask"])
async def test_minutes_without_postgresql(
    world: World, before: Before, database_url: str, patience: Patience, step: str
) -> None:
    async with through(world, database_url) as (cut_off, proxy):
        eraser = cut_off.eraser(batch_rows=2)

        async def cut() -> None:
            proxy.close()

        once(eraser, step, cut)
        async with working(eraser):
            await until(
                lambda: sum(patience.pauses) > MINUTES, within=120, what="minutes of waiting"
            )
            assert away(eraser, "database")
            proxy.open()
            await until_state(world, "verified", within=120)
    assert await world.value("select attempts from lethe.job") == 0
    await assert_erased_once(world, before, SUBJECT, EXPECTED)


@pytest.fixture
def postgres(running_stack: Stack) -> Iterator[Stack]:
    """The server, which answers again at the end whatever the test did to it."""
    yield running_stack
    running_stack.start("postgres")


class Restarts:
    """PostgreSQL itself ends at one step after the other, each as soon as it was back."""

    def __init__(
        self, stack: Stack, steps: Sequence[str], patience: Patience, *, kill: bool
    ) -> None:
        self._stack = stack
        self._kill = kill
        self._patience = patience
        self._left = list(steps)
        self._waited = 0
        self._is_up = True
        self._down = asyncio.Event()

    def put_in(self, eraser: Eraser) -> None:
        """Let the server end before the steps of this eraser."""
        for step in self._left:
            put_in(eraser.batches, step, self._at(step, getattr(eraser.batches, step)))

    def _at(self, step: str, real: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._is_up and self._left[:1] == [step]:
                self._is_up = False
                self._left.pop(0)
                await asyncio.to_thread(self._stack.stop, "postgres", kill=self._kill)
                self._waited = len(self._patience.pauses)
                self._down.set()
            return await real(*args, **kwargs)

        return call

    async def all(self) -> None:
        """Bring the server back whenever the eraser has seen that it is away, till all was done."""
        while self._left or not self._is_up:
            await asyncio.wait_for(self._down.wait(), 120)
            await until(
                lambda: len(self._patience.pauses) > self._waited, within=120, what="a wait"
            )
            await asyncio.to_thread(self._stack.start, "postgres")
            self._down.clear()
            self._is_up = True


@pytest.mark.parametrize("kill", [False, True], ids=["shut down", "killed"])
async def test_postgresql_itself_restarts_at_every_step_of_a_batch(
    world: World,
    before: Before,
    database_url: str,
    postgres: Stack,
    patience: Patience,
    *,
    kill: bool,
) -> None:
    # The last is between the mask and its commit, in the open transaction.
    steps = ["collect", "intend", "delete", "mask", "_advance"]
    restarts = Restarts(postgres, steps, patience, kill=kill)
    engine = database.create_engine(database_url, application_name="test", pool_size=10)
    async with database.disposing(engine):
        eraser = replace(world, engine=engine).eraser(batch_rows=1, concurrency=1)
        restarts.put_in(eraser)
        async with working(eraser):
            await restarts.all()
            # The test's own connections broke, too.
            await world.engine.dispose()
            await until_state(world, "verified", within=120)
    assert away(eraser, "database")
    assert await world.value("select attempts from lethe.job") == 0
    await assert_erased_once(world, before, SUBJECT, EXPECTED)


async def test_a_commit_whose_answer_was_lost_is_not_done_again(
    world: World, before: Before, database_url: str, patience: Patience
) -> None:
    """Each commit in turn succeeds, and the connection breaks before the eraser hears of it."""
    del patience
    commits = [0]
    answered = Committed()
    async with through(world, database_url, lambda: answered) as (cut_off, proxy):
        eraser = cut_off.eraser(batch_rows=2)
        lost: set[int] = set()

        def commit(_connection: Any) -> None:
            commits[0] += 1
            if commits[0] % 3 == 0 and len(lost) < 5:
                lost.add(commits[0])
                answered.kept_back.clear()
                proxy.silence()

        event.listen(cut_off.engine.sync_engine, "commit", commit)
        async with working(eraser):
            for number in range(1, 6):
                await until(lambda n=number: len(lost) >= n, within=120, what="a commit")  # type: ignore[misc] # bound here
                await asyncio.wait_for(answered.kept_back.wait(), 120)
                proxy.close()
                proxy.open()
                proxy.speak()
                if await world.state() == "verified":
                    break
            await until_state(world, "verified", within=120)
    assert len(lost) >= 3
    await assert_erased_once(world, before, SUBJECT, EXPECTED)


class Committed:
    """Sees that PostgreSQL committed; while the proxy is silent, nobody else hears of it."""

    def __init__(self) -> None:
        self.kept_back = asyncio.Event()

    async def asks(self, data: bytes) -> None:
        """Whatever is asked passes on."""

    def answers(self, data: bytes) -> None:
        """Look for the end of a commit."""
        if b"C\x00\x00\x00\x0bCOMMIT\x00" in data:
            self.kept_back.set()


@pytest.mark.parametrize(
    ("table", "moment"),
    [
        ("public.sketch_feature", "update"),
        ("lethe.journal", "insert"),
        ("lethe.outbox", "insert"),
        ("public.client", "update"),
    ],
)
async def test_a_full_disk_is_waited_for(
    world: World, before: Before, patience: Patience, table: str, moment: str
) -> None:
    """PostgreSQL says 53100 where it would have written."""
    await world.write(
        "create function public.full_disk() returns trigger language plpgsql as $$"
        " begin raise exception using errcode = '53100', message = 'no space left'; end $$"
    )
    await world.write(
        f"create trigger full_disk before {moment} on {table}"
        " for each row execute function public.full_disk()"
    )
    eraser = world.eraser(batch_rows=2)
    async with working(eraser):
        await until(lambda: sum(patience.pauses) > MINUTES, within=120, what="minutes of waiting")
        assert away(eraser, "database")
        assert (await world.left_of(SUBJECT))["client"] > 0
        await world.write(f"drop trigger full_disk on {table}")
        await until_state(world, "verified", within=120)
    assert await world.value("select attempts from lethe.job") == 0
    await assert_erased_once(world, before, SUBJECT, EXPECTED)
