"""Judges an outbox by its rows, the topics' records and the consumers' effects, nothing else.

What it holds against them: nothing is lost, the first appearances of a key's events are in their
order, no event takes effect twice, and every status is true. `StreamedOrder` is the same for runs
too long to be held in memory.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from lethe_outbox.message import EVENT_ID_HEADER
from lethe_outbox.schema import Status

SHOWN = 5
DEAD = frozenset({Status.DEAD_LETTERED, Status.DLT_FAILED})


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the outbox."""

    id: int
    event_id: UUID
    topic: str
    key: str
    status: Status
    has_sent_at: bool
    attempts: int = 0
    dlt_attempts: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Buried:
    """A row of `outbox_dead`."""

    id: int
    event_id: UUID
    topic: str
    key: str
    status: Status
    held: bool


@dataclass(frozen=True, slots=True)
class Published:
    """A record of a topic."""

    topic: str
    partition: int
    offset: int
    key: str
    event_id: UUID


@dataclass(frozen=True, slots=True)
class Effect:
    """What one consumer's transaction left of one event."""

    consumer: str
    event_id: UUID


def published(consumed: Iterable[object]) -> list[Published]:
    """Take what aiokafka's consumer gave."""
    found = []
    for record in consumed:
        headers = dict(record.headers)  # type: ignore[attr-defined] # aiokafka has no types
        found.append(
            Published(
                record.topic,  # type: ignore[attr-defined] # likewise
                record.partition,  # type: ignore[attr-defined] # likewise
                record.offset,  # type: ignore[attr-defined] # likewise
                record.key.decode(),  # type: ignore[attr-defined] # likewise
                UUID(headers[EVENT_ID_HEADER].decode()),
            )
        )
    return found


def judge(
    rows: Sequence[Stored],
    records: Sequence[Published],
    effects: Sequence[Effect] | None = None,
    *,
    buried: Sequence[Buried] | None = None,
    reordered: Collection[int] = (),
    finished: bool = True,
) -> list[str]:
    """List what is wrong: lost, out of order, in two partitions, a false status, a double effect.

    Args:
        rows: every row of the outbox.
        records: every record of every topic it publishes to, dead-letter topics included.
        effects: in the order in which they were committed, if consumers ran.
        buried: every row of `outbox_dead`; None if it is not judged.
        reordered: rows that somebody brought back behind later ones, and said so.
        finished: relay and consumers had the time for everything that they may do.
    """
    problems = [
        *_resolved(rows, records),
        *_order(rows, records, reordered),
        *_strangers(rows, records),
        *_marks(rows),
    ]
    if buried is not None:
        problems += _graves(rows, records, buried)
    if finished:
        problems += _unfinished(rows, records, buried or ())
    if effects is not None:
        problems += _effects(rows, effects, reordered, finished=finished)
    return problems


def _resolved(rows: Sequence[Stored], records: Sequence[Published]) -> Iterable[str]:
    seen: dict[str, set[UUID]] = {}
    for record in records:
        seen.setdefault(record.topic, set()).add(record.event_id)

    def there(row: Stored) -> bool:
        return row.event_id in seen.get(row.topic, ())

    def aside(row: Stored) -> bool:
        return row.event_id in seen.get(f"{row.topic}.DLT", ())

    yield from _named("lost", rows, lambda row: row.status is Status.SENT and not there(row))
    yield from _named(
        "dead-lettered but not in the dead-letter topic",
        rows,
        lambda row: row.status is Status.DEAD_LETTERED and not aside(row),
    )
    yield from _named("refused but published", rows, lambda row: row.status in DEAD and there(row))


def _marks(rows: Sequence[Stored]) -> Iterable[str]:
    """What stands beside a status must fit to it."""
    yield from _named(
        "with a false sent_at", rows, lambda row: row.has_sent_at is not (row.status is Status.SENT)
    )
    yield from _named(
        "dead without attempt or reason",
        rows,
        lambda row: row.status in DEAD and (row.attempts < 1 or not row.last_error),
    )
    yield from _named(
        "DLT_FAILED without a counted attempt",
        rows,
        lambda row: row.status is Status.DLT_FAILED and row.dlt_attempts < 1,
    )
    yield from _named(
        "never refused but with a burnt attempt or a reason",
        rows,
        lambda row: row.attempts < 1 and bool(row.dlt_attempts or row.last_error),
    )


def _graves(
    rows: Sequence[Stored], records: Sequence[Published], buried: Sequence[Buried]
) -> Iterable[str]:
    """`outbox_dead` lists the dead rows, all of them and nothing else."""
    graves = {(grave.id, grave.event_id, grave.topic, grave.key, grave.status) for grave in buried}
    dead = {
        (row.id, row.event_id, row.topic, row.key, row.status) for row in rows if row.status in DEAD
    }
    if missing := dead - graves:
        yield f"{len(missing)} dead rows are not in outbox_dead"
    if false := graves - dead:
        yield f"{len(false)} entries of outbox_dead are of no such dead row"
    held = {(grave.topic, grave.key): grave.id for grave in buried if grave.held}
    numbers = {row.event_id: row.id for row in rows}
    overtaken = [
        record
        for record in records
        if numbers.get(record.event_id, 0) > held.get((record.topic, record.key), 1 << 62)
    ]
    if overtaken:
        yield f"{len(overtaken)} records of keys that are held back"


def _unfinished(
    rows: Sequence[Stored], records: Sequence[Published], buried: Iterable[Buried]
) -> Iterable[str]:
    held = {(grave.topic, grave.key): grave.id for grave in buried if grave.held}
    seen = {(record.topic, record.event_id) for record in records}

    def pending(row: Stored) -> bool:
        return row.status is Status.PENDING

    yield from _named(
        "still pending",
        rows,
        lambda row: pending(row) and not row.id > held.get((row.topic, row.key), 1 << 62),
    )
    yield from _named(
        "published and not marked",
        rows,
        lambda row: pending(row) and (row.topic, row.event_id) in seen,
    )


def _order(
    rows: Sequence[Stored], records: Sequence[Published], reordered: Collection[int]
) -> Iterable[str]:
    """First appearances of a key's events must be in the order of their ids."""
    ids = {row.event_id: row.id for row in rows}
    last: dict[tuple[str, str], int] = {}
    partitions: dict[tuple[str, str], set[int]] = {}
    seen: set[tuple[str, UUID]] = set()
    inversions = []
    for record in sorted(records, key=lambda one: (one.topic, one.partition, one.offset)):
        if record.topic.endswith(".DLT"):
            continue
        place = (record.topic, record.key)
        partitions.setdefault(place, set()).add(record.partition)
        if (record.topic, record.event_id) in seen or record.event_id not in ids:
            continue
        seen.add((record.topic, record.event_id))
        number = ids[record.event_id]
        if number < last.get(place, 0) and number not in reordered:
            inversions.append(f"{record.key}: {number} after {last[place]}")
        last[place] = max(number, last.get(place, 0))
    if inversions:
        yield f"{len(inversions)} out of order, e.g. {inversions[:SHOWN]}"
    torn = [key for key, found in partitions.items() if len(found) > 1]
    if torn:
        yield f"{len(torn)} keys in several partitions, e.g. {torn[:SHOWN]}"


def _strangers(rows: Sequence[Stored], records: Sequence[Published]) -> Iterable[str]:
    known = {(row.event_id, row.key) for row in rows}
    strange = {(record.event_id, record.key) for record in records} - known
    if strange:
        yield f"{len(strange)} records of no row"


def _effects(
    rows: Sequence[Stored], effects: Sequence[Effect], reordered: Collection[int], *, finished: bool
) -> Iterable[str]:
    """Each consumer's effects: of every sent row once, and in the order of each key."""
    of_event = {row.event_id: row for row in rows}
    by_consumer: dict[str, list[UUID]] = {}
    for effect in effects:
        by_consumer.setdefault(effect.consumer, []).append(effect.event_id)
    if finished and not by_consumer and any(row.status is Status.SENT for row in rows):
        yield "nothing that was sent took effect"
    for consumer, events in by_consumer.items():
        counts = Counter(events)
        double = [event for event, count in counts.items() if count > 1]
        if double:
            yield f"{len(double)} events took effect more than once in {consumer}"
        strange = counts.keys() - of_event.keys()
        if strange:
            yield f"{len(strange)} effects of no row in {consumer}"
        if finished:
            yield from _named(
                f"sent without effect in {consumer}",
                rows,
                lambda row, counts=counts: row.status is Status.SENT and not counts[row.event_id],  # type: ignore[misc] # of this turn
            )
        known = [of_event[event] for event in events if event in of_event]
        yield from _effects_in_order(known, reordered, consumer)


def _effects_in_order(
    rows: Iterable[Stored], reordered: Collection[int], consumer: str
) -> Iterable[str]:
    last: dict[tuple[str, str], int] = {}
    inversions = 0
    for row in rows:
        place = (row.topic, row.key)
        inversions += row.id < last.get(place, 0) and row.id not in reordered
        last[place] = max(row.id, last.get(place, 0))
    if inversions:
        yield f"{inversions} effects out of order in {consumer}"


def _named(what: str, rows: Sequence[Stored], wrong: Callable[[Stored], bool]) -> Iterable[str]:
    found = [row.id for row in rows if wrong(row)]
    if found:
        yield f"{len(found)} rows {what}, e.g. {found[:SHOWN]}"


def repetitions(records: Iterable[Published]) -> int:
    """Count the records that repeat an earlier one of their topic."""
    counts = Counter((record.topic, record.event_id) for record in records)
    return sum(count - 1 for count in counts.values())


@dataclass(slots=True)
class StreamedOrder:
    """Order and completeness of a topic whose records number the events of their key: 1, 2, 3, ...

    What it holds in memory grows with the keys and what was refused, not with the records.

    Args:
        refused: by key, the numbers that may be missing because they were refused.
    """

    refused: Mapping[str, Collection[int]] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    records: int = 0
    repetitions: int = 0
    gaps: list[str] = field(default_factory=list)
    published_refusals: int = 0
    torn: int = 0

    def see(self, key: str, number: int, partition: int = 0) -> None:
        """Take in one record, in the order of its partition."""
        self.records += 1
        self.torn += self.partitions.setdefault(key, partition) != partition
        last = self.last.get(key, 0)
        refused = self.refused.get(key, ())
        if number in refused:
            self.published_refusals += 1
            return
        if number <= last:
            self.repetitions += 1
            return
        missing = [one for one in range(last + 1, number) if one not in refused]
        if missing and len(self.gaps) <= SHOWN:
            self.gaps.append(f"{key}: {number} after {last}")
        self.last[key] = number

    def judge(self, written: Mapping[str, int]) -> list[str]:
        """List what is wrong, given how many events were written of each key."""
        problems = []
        if self.gaps:
            problems.append(f"lost or out of order, e.g. {self.gaps[:SHOWN]}")
        if self.torn:
            problems.append(f"{self.torn} records of keys in several partitions")
        if self.published_refusals:
            problems.append(f"{self.published_refusals} refused but published")
        short = [key for key, count in written.items() if self._expected(key, count)]
        if short:
            problems.append(f"{len(short)} keys do not end with their last, e.g. {short[:SHOWN]}")
        if strange := self.last.keys() - written.keys():
            problems.append(f"{len(strange)} keys that nobody wrote")
        return problems

    def _expected(self, key: str, count: int) -> bool:
        refused = self.refused.get(key, ())
        last = next((n for n in range(count, 0, -1) if n not in refused), 0)
        return self.last.get(key, 0) != last
