"""The verdict on a soak, in memory that grows with its keys and not with its records."""

from collections import Counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.schema import Status
from tests.soak.world import TOPIC, number_in
from tests.soak.writing import Ledger
from tests.support.outbox_checker import StreamedOrder
from tests.support.topics import stream

_STATUSES = text("SELECT status, count(*) FROM lethe.outbox GROUP BY status")
_FALSE_MARKS = text("SELECT count(*) FROM lethe.outbox WHERE (sent_at IS NOT NULL) <> (status = 1)")
_GRAVES = text(
    "SELECT count(*) FROM lethe.outbox o FULL JOIN lethe.outbox_dead d USING (id, event_id)"
    " WHERE (o.status IN (2, 3) OR d.id IS NOT NULL) AND o.status IS DISTINCT FROM d.status"
)
_EFFECTS = text("SELECT key, last, count, backwards FROM soak_effect")


async def judge(engine: AsyncEngine, bootstrap: str, ledger: Ledger) -> tuple[list[str], str]:
    """Give everything that is wrong, and in one line what was seen."""
    order = StreamedOrder(ledger.refused)
    async for record in stream(bootstrap, [TOPIC]):
        order.see(record.key.decode(), number_in(record.value), record.partition)
    problems = order.judge(ledger.written)
    async with engine.connect() as connection:
        found = await connection.execute(_STATUSES)
        statuses = Counter({Status(row[0]): int(row[1]) for row in found})
        false_marks = await connection.scalar(_FALSE_MARKS)
        false_graves = await connection.scalar(_GRAVES)
        effects = {row[0]: tuple(row[1:]) for row in await connection.execute(_EFFECTS)}
    problems += _statuses(statuses, ledger)
    if false_marks or false_graves:
        problems.append(f"{false_marks} false sent_at, {false_graves} false entries of the dead")
    problems += _effects(effects, ledger)
    seen = (
        f"{order.records} records, {order.repetitions} of them repetitions; "
        + ", ".join(f"{count} {status.name}" for status, count in sorted(statuses.items()))
        + f"; {sum(effect[1] for effect in effects.values())} effects"
    )
    return problems, seen


def _statuses(statuses: Counter[Status], ledger: Ledger) -> list[str]:
    refused = sum(map(len, ledger.refused.values()))
    dead = statuses[Status.DEAD_LETTERED] + statuses[Status.DLT_FAILED]
    problems = []
    if statuses[Status.PENDING]:
        problems.append(f"{statuses[Status.PENDING]} rows still pending")
    if statuses[Status.SENT] != ledger.rows - refused:
        problems.append(f"{statuses[Status.SENT]} rows sent, not {ledger.rows - refused}")
    if dead != refused:
        problems.append(f"{dead} rows dead, not {refused}")
    return problems


def _effects(effects: dict[str, tuple[int, ...]], ledger: Ledger) -> list[str]:
    """Each event of a key took effect once, in order: last, count and how many backwards."""
    wrong = []
    for key, written in ledger.written.items():
        refused = ledger.refused.get(key, set())
        last = next((n for n in range(written, 0, -1) if n not in refused), 0)
        expected, found = (last, written - len(refused), 0), effects.get(key, (0, 0, 0))
        if found != expected:
            wrong.append(f"{key}: {found}, not {expected}")
    strange = effects.keys() - ledger.written.keys()
    return [
        *([f"{len(wrong)} keys with wrong effects, e.g. {wrong[:5]}"] if wrong else []),
        *([f"{len(strange)} keys with effects that nobody wrote"] if strange else []),
    ]
