"""Judges an outbox by its rows, the topics' records and the consumers' effects, nothing else."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from lethe_outbox.message import EVENT_ID_HEADER
from lethe_outbox.schema import Status

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the outbox."""

    id: int
    event_id: UUID
    topic: str
    key: str
    status: Status


@dataclass(frozen=True, slots=True)
class Published:
    """A record of a topic."""

    topic: str
    partition: int
    offset: int
    key: str
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
    effects: Mapping[UUID, int] | None = None,
    *,
    finished: bool = True,
) -> list[str]:
    """List what is wrong: lost, out of order, in two partitions, a false status, a double effect.

    Args:
        rows: every row of the outbox.
        records: every record of every topic it publishes to, dead-letter topics included.
        effects: how often each event took effect, if consumers ran.
        finished: the relay had the time to publish everything that it may publish.
    """
    problems = [
        *_statuses(rows, records, finished=finished),
        *_order(rows, records),
        *_strangers(rows, records),
    ]
    if effects is not None:
        problems += _effects(rows, effects)
    return problems


def _statuses(
    rows: Sequence[Stored], records: Sequence[Published], *, finished: bool
) -> Iterable[str]:
    seen: dict[str, set[UUID]] = {}
    for record in records:
        seen.setdefault(record.topic, set()).add(record.event_id)
    sent = [row for row in rows if row.status is Status.SENT]
    dead = [row for row in rows if row.status is Status.DEAD_LETTERED]
    failed = [row for row in rows if row.status is Status.DLT_FAILED]
    yield from _named("lost", [row for row in sent if row.event_id not in seen.get(row.topic, ())])
    yield from _named(
        "dead-lettered but not in the dead-letter topic",
        [row for row in dead if row.event_id not in seen.get(f"{row.topic}.DLT", ())],
    )
    yield from _named(
        "refused but published", [r for r in dead + failed if r.event_id in seen.get(r.topic, ())]
    )
    if finished:
        yield from _named("still pending", [row for row in rows if row.status is Status.PENDING])


def _order(rows: Sequence[Stored], records: Sequence[Published]) -> Iterable[str]:
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
        if number < last.get(place, 0):
            inversions.append(f"{record.key}: {number} after {last[place]}")
        last[place] = max(number, last.get(place, 0))
    if inversions:
        yield f"{len(inversions)} out of order, e.g. {inversions[:SHOWN]}"
    torn = [key for key, found in partitions.items() if len(found) > 1]
    if torn:
        yield f"{len(torn)} keys in several partitions, e.g. {torn[:SHOWN]}"


def _strangers(rows: Sequence[Stored], records: Sequence[Published]) -> Iterable[str]:
    known = {row.event_id for row in rows}
    strange = {record.event_id for record in records} - known
    if strange:
        yield f"{len(strange)} records of no row"


def _effects(rows: Sequence[Stored], effects: Mapping[UUID, int]) -> Iterable[str]:
    double = [event for event, count in effects.items() if count > 1]
    if double:
        yield f"{len(double)} events took effect more than once"
    missing = [r for r in rows if r.status is Status.SENT and not effects.get(r.event_id)]
    yield from _named("sent without effect", missing)


def _named(what: str, rows: Sequence[Stored]) -> Iterable[str]:
    if rows:
        yield f"{len(rows)} rows {what}, e.g. {[row.id for row in rows[:SHOWN]]}"


def repetitions(records: Iterable[Published]) -> int:
    """Count the records that repeat an earlier one of their topic."""
    counts = Counter((record.topic, record.event_id) for record in records)
    return sum(count - 1 for count in counts.values())
