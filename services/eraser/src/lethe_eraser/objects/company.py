"""Pages that deletes of several batches share, so that few requests are sent half full.

A page that is not full waits for the next batch, and no longer: once a newer batch came to its
bucket, or it is known that none comes, an older one's keys are sent with whatever waits there.
So nobody waits for a batch that waits for them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from lethe_eraser.objects.deleting import Item

_REMEMBERED: Final = 8
"""Seats of which it is known where they are; many more than are ever taken at once."""

_MOST_GONE: Final = 50_000
"""Deleted keys that are remembered, as a number each: three megabytes."""

Send = Callable[[str, Sequence[Item]], Awaitable[dict[Item, str]]]
"""Deletes one page; gives what S3 refused of it."""


@dataclass(slots=True, eq=False)
class _Call:
    """Keys that somebody waits for, of the batch in `seat`."""

    seat: int
    left: int
    done: asyncio.Future[None]
    refused: dict[Item, str] = field(default_factory=dict)
    error: BaseException | None = None

    def settle(self, item: Item, outcome: dict[Item, str] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            self.error = outcome
        elif item in outcome:
            self.refused[item] = outcome[item]
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True)
class _Queue:
    """What waits to be deleted from one bucket."""

    send: Send
    page_keys: int
    waiting: deque[tuple[Item, _Call]] = field(default_factory=deque)

    def add(self, keys: Iterable[tuple[Item, _Call]]) -> None:
        """Let keys wait, those of older batches before those of newer ones."""
        self.waiting.extend(keys)
        self.waiting = deque(sorted(self.waiting, key=lambda one: one[1].seat))


class Company:
    """The batches of one job that are under way; used by one event loop."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._coming: dict[int, set[str]] = {}
        self._seats = 0
        self._is_alone = True
        self._sending: set[asyncio.Task[None]] = set()
        self._gone: set[int] = set()

    @contextmanager
    def seat(self) -> Iterator["Seat"]:
        """Let what is deleted inside, and in tasks made inside, be that of one more batch.

        Whoever takes a seat leaves it in the end.
        """
        self._seats += 1
        self._is_alone = False
        oldest = self._seats - _REMEMBERED
        self._coming = {n: coming for n, coming in self._coming.items() if n > oldest}
        seat = Seat(self, self._seats)
        token = _SEAT.set(seat)
        try:
            yield seat
        finally:
            _SEAT.reset(token)

    def nobody_comes(self) -> None:
        """Let no key wait for a seat that is not taken yet, until one is."""
        self._is_alone = True
        for bucket in self._queues:
            self._send_ready(bucket)

    async def end(self) -> None:
        """Send nothing more, and wait for what is under way."""
        for queue in self._queues.values():
            queue.waiting.clear()
        if self._sending:
            await asyncio.wait(self._sending)

    async def delete(
        self, seat: int, bucket: str, items: Sequence[Item], send: Send, page_keys: int
    ) -> dict[Item, str]:
        """Delete for a seat; gives what S3 refused, raises what `send` raised.

        A key that an earlier batch deleted is not sent again: people use one result for the next.
        What is written under it afterwards is for the verification to find.
        """
        queue = self._queues.setdefault(bucket, _Queue(send, page_keys))
        left = sorted((item for item in items if not self._is_gone(bucket, item)), key=_by_key)
        call = _Call(seat, len(left), asyncio.get_running_loop().create_future())
        queue.add([(item, call) for item in left])
        self.came(seat, bucket)
        if left:
            await call.done
        if call.error is not None:
            raise call.error
        return call.refused

    def expect(self, seat: int, buckets: Collection[str]) -> None:
        """Note the buckets that the batch of this seat has keys for, when it says so first."""
        if seat not in self._coming:
            self._coming[seat] = set(buckets)
            for bucket in self._queues:
                self._send_ready(bucket)

    def came(self, seat: int, bucket: str) -> None:
        """Note that nothing more of this seat comes to the bucket that others should wait for."""
        if seat in self._coming:
            self._coming[seat].discard(bucket)
            self._send_ready(bucket)

    def left(self, seat: int) -> None:
        """Note that nothing more of this seat comes anywhere."""
        self._coming[seat] = set()
        for bucket in self._queues:
            self._send_ready(bucket)

    def _is_gone(self, bucket: str, item: Item) -> bool:
        return hash((bucket, item)) in self._gone

    def _note_gone(self, bucket: str, items: Iterable[Item]) -> None:
        """Remember keys of buckets without versions; a version is listed before it is deleted."""
        for item in items:
            if item.version_id is None and len(self._gone) < _MOST_GONE:
                self._gone.add(hash((bucket, item)))

    def _may_wait(self, seat: int, bucket: str) -> bool:
        """Whether keys of this seat may wait for a newer batch."""
        if seat == self._seats:
            return not self._is_alone
        return all(newer <= seat or bucket in coming for newer, coming in self._coming.items())

    def _send_ready(self, bucket: str) -> None:
        queue = self._queues.get(bucket)
        while queue is not None and queue.waiting:
            is_full = len(queue.waiting) >= queue.page_keys
            if not is_full and self._may_wait(queue.waiting[0][1].seat, bucket):
                return
            size = min(queue.page_keys, len(queue.waiting))
            page = [queue.waiting.popleft() for _ in range(size)]
            task = asyncio.create_task(self._send(bucket, queue.send, page))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, bucket: str, send: Send, page: Sequence[tuple[Item, _Call]]) -> None:
        outcome: dict[Item, str] | BaseException
        try:
            outcome = await send(bucket, list(dict.fromkeys(item for item, _ in page)))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome = error
        else:
            self._note_gone(bucket, (item for item, _ in page if item not in outcome))
        for item, call in page:
            call.settle(item, outcome)


@dataclass(frozen=True, slots=True)
class Seat:
    """One batch's place in a company."""

    company: Company
    number: int

    @staticmethod
    def taken() -> "Seat | None":
        """Give the seat of the batch that this task works for, if it has one."""
        return _SEAT.get()

    async def delete(
        self, bucket: str, items: Sequence[Item], send: Send, page_keys: int
    ) -> dict[Item, str]:
        """Delete in pages that others may share."""
        return await self.company.delete(self.number, bucket, items, send, page_keys)

    def expect(self, buckets: Collection[str]) -> None:
        """Say which buckets the batch has keys for; the first word counts."""
        self.company.expect(self.number, buckets)

    def came(self, bucket: str) -> None:
        """Say that nothing more comes to this bucket that others should wait for."""
        self.company.came(self.number, bucket)

    def leave(self) -> None:
        """Say that the batch's deletes are over, however they ended."""
        self.company.left(self.number)


_SEAT: ContextVar[Seat | None] = ContextVar("lethe_eraser_seat", default=None)
"""Not an argument: between a batch and its pages lie buckets, replicas, versions and proofs."""


def _by_key(item: Item) -> str:
    # In order, so that a page is of few prefixes and one that is throttled holds few others up.
    return item.key
