"""Takes jobs of this instance's buckets, the most urgent first, in the window only.

While every worker is busy, somebody looks whether a more urgent job waits; the next one that comes
to a batch boundary makes room for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.topics import PARTITIONS
from lethe_eraser.domain import MAX_ATTEMPTS, TRANSITIONS, Job, JobState, Urgency, say
from lethe_eraser.execute.rounds import Rounds
from lethe_eraser.execute.stopwatch import Stopwatch
from lethe_eraser.objects import ObjectStoreUnavailableError
from lethe_eraser.storage import jobs
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.jobs import TakenOverError
from lethe_eraser.window import Window
from lethe_outbox import BUCKETS
from lethe_outbox.consumer.transient import is_transient
from lethe_runtime.database import TRANSIENT
from lethe_runtime.database_away import reason_of
from lethe_runtime.health import Readiness
from lethe_runtime.logging import error_class, places
from lethe_runtime.waiting import pause

IDLE_SECONDS: Final = 1.0
"""How often a worker without work looks for some, unless it is woken."""

LOOK_AHEAD_SECONDS: Final = 1.0
"""How often it is asked whether a more urgent job waits."""

LONGEST_BACKOFF: Final = 30.0
RETRY: Final = timedelta(seconds=5)
"""Pause after a job's first error of its own; it doubles with each further one."""

COOL_SECONDS: Final = 30.0
"""How long a job that another executor took over is left to it, and how long one over which a
server was away comes after all others: it may be that job's own data, or a row somebody locks."""

ELSEWHERE: Final[tuple[type[Exception], ...]] = (*TRANSIENT, ObjectStoreUnavailableError)
"""Errors of servers that are away; no job is to blame."""

Clock = Callable[[], datetime]
MayBegin = Callable[[], Awaitable[bool]]

_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


async def at_any_time() -> bool:
    """Nothing has to be asked before a job is taken."""
    return True


class Assignment:
    """The buckets whose partitions this instance consumes; jobs of others are left alone."""

    def __init__(self) -> None:
        self._buckets: frozenset[int] = frozenset()
        self.changed = asyncio.Event()

    @property
    def buckets(self) -> frozenset[int]:
        """Buckets assigned now."""
        return self._buckets

    def assign(self, partitions: Collection[int]) -> None:
        """Take the buckets of these partitions, and no others."""
        wanted = frozenset(partitions)
        self._buckets = frozenset(b for b in range(BUCKETS) if b % PARTITIONS in wanted)
        self.changed.set()


class Executor:
    """Runs jobs, several at once, until it is stopped.

    Args:
        engine: the product's database.
        rounds: works on one job.
        announcer: appends events.
        assignment: whose jobs are ours.
        window: when erasing is allowed.
        readiness: told when the database or S3 is away.
        concurrency: jobs at once.
        control_fresh: how old the watermark of a job's bucket may be.
        clock: the time, for the window.
        may_begin: asked before each job is taken.
        stopwatch: told what the workers do.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        rounds: Rounds,
        announcer: Announcer,
        assignment: Assignment,
        window: Window,
        readiness: Readiness,
        concurrency: int,
        control_fresh: timedelta,
        clock: Clock = utc_now,
        may_begin: MayBegin = at_any_time,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._engine = engine
        self._rounds = rounds
        self._announcer = announcer
        self._assignment = assignment
        self._window = window
        self._readiness = readiness
        self._concurrency = concurrency
        self._control_fresh = control_fresh
        self._clock = clock
        self._may_begin = may_begin
        self._stopwatch = stopwatch or Stopwatch()
        self._claiming = asyncio.Lock()
        self._running: set[UUID] = set()
        self._left_to_others: dict[UUID, float] = {}
        self._after_others: dict[UUID, float] = {}
        self._waiting: Urgency | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Take and run jobs until `stop`; running jobs then stop at their next batch boundary."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work(stop))
            group.create_task(self._look_ahead(stop))

    async def run_next(self, stop: asyncio.Event) -> bool:
        """Take one job and run it; False if there is none to run now."""
        if stop.is_set():
            return False
        job = await self._claim() if await self._may_begin() else None
        if job is None:
            return False
        try:
            await self._run(job, stop)
        finally:
            self._running.discard(job.job_id)
        return True

    def _may_go_on(self, job: Job, stop: asyncio.Event) -> bool:
        if stop.is_set() or not (job.run_now or self._window.is_open(self._clock())):
            return False
        # A verification scan that makes room would begin anew.
        if self._waiting is None or job.state is JobState.ERASED or job.urgency < self._waiting:
            return True
        self._waiting = None
        return False

    async def look_ahead(self) -> None:
        """See whether somebody more urgent waits than those who run."""
        self._waiting = None
        if len(self._running) < self._concurrency:
            return
        async with self._engine.connect() as connection:
            job = await jobs.most_urgent(
                connection,
                self._assignment.buckets,
                control_fresh=self._control_fresh,
                in_window=self._window.is_open(self._clock()),
                without=self._running | self._left_to_others.keys() | self._after_others.keys(),
            )
        self._waiting = job.urgency if job is not None else None

    async def _look_ahead(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await pause(LOOK_AHEAD_SECONDS, stop)
            try:
                await self.look_ahead()
            except TRANSIENT as error:
                _log.debug("not looked ahead", error_class=error_class(error))

    async def _work(self, stop: asyncio.Event) -> None:
        backoff = 0.0
        while not stop.is_set():
            try:
                worked = await self.run_next(stop)
            except TRANSIENT as error:
                backoff = await self._wait_for("database", reason_of(error), backoff, stop)
            except ObjectStoreUnavailableError as error:
                backoff = await self._wait_for("s3", error.code, backoff, stop)
            else:
                backoff = 0.0
                if not worked:
                    await self._idle(stop)

    async def _claim(self) -> Job | None:
        async with self._claiming:
            buckets = self._assignment.buckets
            if not buckets:
                return None
            self._left_to_others = _still(self._left_to_others)
            self._after_others = _still(self._after_others)
            without = self._running | self._left_to_others.keys()
            job = await self._claim_one(buckets, without | self._after_others.keys())
            if job is None and self._after_others:
                job = await self._claim_one(buckets, without)
            if job is not None:
                self._running.add(job.job_id)
            return job

    async def _claim_one(self, buckets: frozenset[int], without: Collection[UUID]) -> Job | None:
        async with self._engine.begin() as connection:
            return await jobs.claim(
                connection,
                buckets,
                control_fresh=self._control_fresh,
                in_window=self._window.is_open(self._clock()),
                without=without,
            )

    async def _run(self, job: Job, stop: asyncio.Event) -> None:
        lap = self._stopwatch.lap(job)

        def may_go_on(now: Job) -> bool:
            lap.at(now)
            return self._may_go_on(now, stop)

        try:
            after = await self._rounds.run(job, may_go_on)
            if after is not None:
                lap.at(after)
            self._after_others.pop(job.job_id, None)
        except TakenOverError:
            self._left_to_others[job.job_id] = time.monotonic() + COOL_SECONDS
            _log.info("job taken over", job_id=str(job.job_id), subject_ref=job.subject_ref)
        except Exception as error:
            if _is_elsewhere(error):
                self._after_others[job.job_id] = time.monotonic() + COOL_SECONDS
                raise
            # Whatever it is, the other jobs go on.
            await self._count_error(job, error)

    async def _count_error(self, job: Job, error: Exception) -> None:
        """Keep executors off the job for a while, or give it up."""
        name = error_class(error)
        try:
            async with self._engine.begin() as connection:
                locked = await jobs.lock(connection, job.job_id, job.generation)
                tried = replace(locked, attempts=locked.attempts + 1, error=name)
                given_up = (
                    tried.attempts >= MAX_ATTEMPTS and JobState.FAILED in TRANSITIONS[tried.state]
                )
                if given_up:
                    tried = tried.to(JobState.FAILED)
                    tried, said = say(tried, tried.snapshot())
                    await self._announcer.announce(connection, [said])
                wait = RETRY * 2 ** (min(tried.attempts, MAX_ATTEMPTS) - 1)
                await jobs.write(connection, tried, retry_in=wait)
        except TakenOverError:
            return
        _log.error(
            "job failed" if given_up else "job had an error",
            job_id=str(job.job_id),
            subject_ref=job.subject_ref,
            error_class=name,
            error_at=places(error.__traceback__),
            attempts=tried.attempts,
        )

    async def _wait_for(
        self, dependency: str, name: str, backoff: float, stop: asyncio.Event
    ) -> float:
        backoff = min(max(0.5, backoff * 2), LONGEST_BACKOFF)
        self._readiness.away(dependency, name)
        _log.warning(
            "dependency away", dependency=dependency, error_class=name, retry_in_seconds=backoff
        )
        await pause(backoff, stop)
        return backoff

    async def _idle(self, stop: asyncio.Event) -> None:
        self._assignment.changed.clear()
        waits = {
            asyncio.create_task(stop.wait()),
            asyncio.create_task(self._assignment.changed.wait()),
        }
        try:
            await asyncio.wait(waits, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _is_elsewhere(error: Exception) -> bool:
    """Say whether a server is away, by the database's own code where it gives one."""
    if isinstance(error, DBAPIError) and not is_transient(error):
        return False
    return isinstance(error, ELSEWHERE)


def _still(until: Mapping[UUID, float]) -> dict[UUID, float]:
    now = time.monotonic()
    return {id_: moment for id_, moment in until.items() if moment > now}
