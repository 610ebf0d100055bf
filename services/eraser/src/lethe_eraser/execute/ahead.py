"""What of a round is still to be read: client rows of consecutive types and tables, by the batch.

Rows that are read are not masked before their batch is, so reading ahead goes by cursor and never
asks what is left.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import ClientTable
from lethe_eraser.storage.client_rows import Begin, ClientRow, expected_of, page_of_each
from lethe_eraser.storage.progress import Page, Step, Stretch

BATCH_OBJECTS: Final = 5_000
"""Objects after which a batch takes in no further request."""

MOST_STRETCHES: Final = 60
"""Stretches that are asked for at once, so that no statement grows without bound."""


@dataclass(frozen=True, slots=True)
class Read:
    """A stretch and its client rows."""

    stretch: Stretch
    rows: Sequence[ClientRow]

    def divided(self, at: int) -> "tuple[Read, Read]":
        """Give the first `at` client rows, one at least, and the others."""
        end = self.rows[at - 1].cursor
        rest = replace(self.stretch, page=replace(self.stretch.page, after=end))
        return (
            Read(Stretch(self.stretch.page, end), self.rows[:at]),
            Read(rest, self.rows[at:]),
        )


@dataclass(frozen=True, slots=True)
class _Left:
    page: Page
    rows: int
    without_request: bool


class Ahead:
    """The client rows of one person and round that no batch has read yet.

    Args:
        sources: the client tables by name.
        subject: the person.
        batch_rows: the most client rows of a batch.
        kind_of: groups types. Those of a kind follow each other: they name objects of the same
            buckets, and no page leaves half full because a batch between them names others.
    """

    def __init__(
        self,
        sources: Mapping[str, ClientTable],
        subject: str,
        *,
        batch_rows: int,
        kind_of: Callable[[str], str],
    ) -> None:
        self._sources = sources
        self._subject = subject
        self._batch_rows = batch_rows
        self._kind_of = kind_of
        self._limit = batch_rows
        self._left: deque[_Left] = deque()

    @property
    def is_done(self) -> bool:
        """Whether everything was read."""
        return not self._left

    async def begin(
        self, connection: AsyncConnection, steps: Mapping[tuple[str, str], Step]
    ) -> None:
        """See what there is, and go on where `steps` say that the round came to."""
        left = []
        for place, source in enumerate(self._sources.values()):
            for expected in await expected_of(connection, source, self._subject):
                step = steps.get((expected.request_type, source.name))
                if step is not None and step.done:
                    continue
                page = Page(expected.request_type, source.name) if step is None else step.page
                one = _Left(page, expected.rows, expected.without_request > 0)
                request_type = expected.request_type
                left.append((self._kind_of(request_type), request_type, place, one))
        # One type after the other, so that a batch asks for the rows of few types.
        self._left = deque(one for *_, one in sorted(left, key=lambda of: of[:-1]))

    async def read(self, connection: AsyncConnection) -> list[Read]:
        """Read on, up to the rows of a batch: one statement per client table."""
        chosen = self._chosen()
        by_source: dict[str, list[_Left]] = {}
        for left in chosen:
            by_source.setdefault(left.page.source, []).append(left)
        found: dict[Page, list[ClientRow]] = {}
        for name, of_source in by_source.items():
            begins = [
                Begin(one.page.request_type, one.page.after, one.without_request)
                for one in of_source
            ]
            # One more than is taken, to know what the last one is.
            pages = await page_of_each(
                connection, self._sources[name], self._subject, begins, limit=self._limit + 1
            )
            found.update(zip((one.page for one in of_source), pages, strict=True))
        return self._taken(chosen, found)

    def put_back(self, reads: Iterable[Read]) -> None:
        """Leave what was just read for a later batch."""
        for read in reversed(list(reads)):
            begin = read.stretch.page
            one = _Left(begin, len(read.rows), any(row.request_id is None for row in read.rows))
            if not read.stretch.done:
                rest = self._left.popleft()
                without = one.without_request or rest.without_request
                one = replace(one, rows=one.rows + rest.rows, without_request=without)
            self._left.appendleft(one)

    def learn(self, rows: int, objects: int) -> None:
        """Bound the next batch by how many objects the client rows of the last one had."""
        fitting = rows * BATCH_OBJECTS // objects if objects else self._batch_rows
        self._limit = max(1, min(self._batch_rows, fitting))

    def _chosen(self) -> list[_Left]:
        """Give what should fill a batch, by what was counted at the beginning."""
        chosen: list[_Left] = []
        room = self._limit
        for left in self._left:
            if room <= 0 or len(chosen) == MOST_STRETCHES:
                break
            chosen.append(left)
            room -= max(left.rows, 1)
        return chosen

    def _taken(self, chosen: Sequence[_Left], found: Mapping[Page, list[ClientRow]]) -> list[Read]:
        reads: list[Read] = []
        room = self._limit
        for left in chosen:
            if not room:
                break
            rows = found[left.page]
            taken = rows[:room]
            room -= len(taken)
            end = taken[-1].cursor if taken else left.page.after
            is_all = len(taken) == len(rows)
            reads.append(Read(Stretch(left.page, end, is_all), taken))
            self._left.popleft()
            if not is_all:
                rest = max(left.rows - len(taken), 1)
                page = replace(left.page, after=end)
                self._left.appendleft(_Left(page, rest, left.without_request))
                break
        return reads


def joined(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Make one of those that follow each other in one type and table."""
    whole: dict[tuple[str, str], Stretch] = {}
    for stretch in stretches:
        place = (stretch.page.request_type, stretch.page.source)
        first = whole.get(place, stretch)
        whole[place] = Stretch(first.page, stretch.end, stretch.done)
    return tuple(whole.values())


def divided(reads: Sequence[Read], later: Collection[int]) -> tuple[Sequence[Read], Sequence[Read]]:
    """Divide before the first client row whose request is among `later`."""
    for place, read in enumerate(reads):
        ids = [row.request_id for row in read.rows]
        at = next((at for at, request_id in enumerate(ids) if request_id in later), None)
        if at == 0:
            return reads[:place], reads[place:]
        if at is not None:
            first, rest = read.divided(at)
            return (*reads[:place], first), (rest, *reads[place + 1 :])
    return reads, ()


def by_type(reads: Iterable[Read]) -> list[tuple[str, list[Read]]]:
    """Group what was read, which comes one type after the other."""
    grouped = groupby(reads, key=lambda read: read.stretch.page.request_type)
    return [(request_type, list(of_type)) for request_type, of_type in grouped]
