"""The batches of a round, two under way at once.

While the rows of one are masked, the next is found, committed to the journal and deleted from S3.
Masks come strictly in the order of batches, and for every row it stays intent, S3, mask. What stops
the next batch (a hold, a pause, the end of the window, an error) does not stop what was begun.
"""

import asyncio
import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lethe_eraser.domain import Job, JobState
from lethe_eraser.execute.ahead import Ahead
from lethe_eraser.execute.batch import Batches
from lethe_eraser.execute.yielding import Yielding
from lethe_eraser.objects import Company, Deletion
from lethe_eraser.storage.journal import Intent

AT_ONCE: Final = 2
"""Batches whose intent is committed and whose rows are not masked, at most.

Objects without a row come beside them: a batch that waited for these to go would be waited for by
the page that its own keys are to fill.
"""

MayGoOn = Callable[[Job], bool]


@dataclass(slots=True, eq=False)
class _Begun:
    intent: Intent
    began: float
    deleting: asyncio.Task[Deletion] | None = None
    """None for objects without a row, which are deleted in their turn."""


class Pipeline:
    """Works through what is ahead of one job; used once.

    Args:
        batches: the steps of a batch.
        job: the job, running.
        subject: its person.
        ahead: what is to be read.
        may_go_on: whether a further batch may begin.
    """

    def __init__(
        self, batches: Batches, job: Job, subject: str, ahead: Ahead, may_go_on: MayGoOn
    ) -> None:
        self._batches = batches
        self._job = job
        self._subject = subject
        self._ahead = ahead
        self._may_go_on = may_go_on
        self._company = Company()
        self._yielding = Yielding()
        self._rests_for = 0.0
        self._begun: list[_Begun] = []
        self._news = asyncio.Event()
        self._stops = False
        self._is_held = False
        self._has_begun_all = False
        self._came_to_the_end = False

    async def run(self) -> tuple[Job, bool] | None:
        """Erase until everything was read, or nothing more may begin.

        Returns:
            The job and whether everything was read; or None if a hold or a pause stopped it.

        Raises:
            TakenOverError: another executor has the job.
            ObjectStoreUnavailableError: S3 is away; what was begun is finished by a later `finish`.
        """
        tasks = [asyncio.create_task(self._mask_all()), asyncio.create_task(self._begin_all())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if not any(_is_death(task) for task in tasks):
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*self._deleting(), return_exceptions=True)
        finally:
            await self._end(tasks)
        if errors := [error for task in tasks if (error := _error(task)) is not None]:
            raise next((e for e in errors if not isinstance(e, Exception)), errors[0])
        return None if self._is_held else (self._job, self._came_to_the_end)

    async def _begin_all(self) -> None:
        try:
            while not self._ahead.is_done and not self._stops:
                plan = await self._batches.collect(
                    self._job, self._subject, self._ahead, self._underway
                )
                if not await self._begin(plan):
                    return
            self._came_to_the_end = self._ahead.is_done
        finally:
            self._stops = True
            self._has_begun_all = True
            self._company.nobody_comes()
            self._news.set()

    async def _begin(self, plan: Intent) -> bool:
        """Begin a batch as soon as there is room; False if it may not."""
        began = time.monotonic()
        if plan.rows:
            await self._until(lambda: self._stops or self._with_rows() < AT_ONCE)
        else:
            # It has no number before its mask, so nothing else may be under way.
            self._company.nobody_comes()
            await self._until(lambda: self._stops or not self._begun)
        await self._rest()
        if self._batches.budget.is_spent:
            self._company.nobody_comes()
        if not await self._batches.budget.take(len(plan.rows), self._goes_on):
            return False
        if not plan.rows:
            after = await self._batches.finish(self._job, plan)
            self._is_held = after is None or after.state is not JobState.RUNNING
            self._job = after or self._job
            return not self._is_held
        begun = await self._batches.intend(self._job, plan)
        if begun is None:
            self._is_held = True
            return False
        _, intent = begun
        with self._company.seat() as seat:
            deleting = asyncio.create_task(self._batches.delete(intent))
        deleting.add_done_callback(lambda _: seat.leave())
        self._add(_Begun(intent, began, deleting))
        return True

    async def _mask_all(self) -> None:
        try:
            while True:
                await self._until(lambda: bool(self._begun) or self._has_begun_all)
                if not self._begun:
                    return
                await self._mask(self._begun[0])
        finally:
            self._stops = True
            self._news.set()

    async def _mask(self, first: _Begun) -> None:
        if first.deleting is not None:
            deletion = await first.deleting
            began = time.monotonic()
            after = await self._batches.mask(self._job, first.intent, deletion)
            self._rests_for = self._yielding.after(time.monotonic() - began)
            self._batches.count(first.intent, first.began)
        elif self._is_held:
            # Its rows are masked; what nobody names waits in the journal until the hold is gone.
            after = self._job
        else:
            after = await self._batches.finish(self._job, first.intent)
        if after is not None:
            self._job = after
        if after is None or after.state is not JobState.RUNNING:
            self._is_held = self._stops = True
        else:
            known = {one.intent.batch for one in self._begun}
            for intent in await self._batches.let_go(after, first.intent):
                if intent.batch not in known:
                    self._add(_Begun(intent, time.monotonic()))
        self._begun.remove(first)
        self._news.set()

    async def _rest(self) -> None:
        """Let the product have its database for a while, if it answered slower than it did."""
        if self._rests_for and not self._stops:
            seconds, self._rests_for = self._rests_for, 0.0
            self._company.nobody_comes()
            await asyncio.sleep(seconds)

    def _with_rows(self) -> int:
        return len(self._deleting())

    def _goes_on(self) -> bool:
        return not self._stops and self._may_go_on(self._job)

    def _add(self, begun: _Begun) -> None:
        insort(self._begun, begun, key=lambda one: one.intent.batch)
        self._news.set()

    def _underway(self) -> list[Intent]:
        return [one.intent for one in self._begun]

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._news.clear()
            await self._news.wait()

    def _deleting(self) -> list[asyncio.Task[Deletion]]:
        return [one.deleting for one in self._begun if one.deleting is not None]

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Leave nothing behind that goes on by itself."""
        left = [*tasks, *self._deleting()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._company.end()


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _is_death(task: asyncio.Task[None]) -> bool:
    """Whether the process is about to end: no error, and nothing goes on after it."""
    error = _error(task)
    return error is not None and not isinstance(error, Exception)
