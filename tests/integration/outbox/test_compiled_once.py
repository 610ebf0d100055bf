"""What is asked again and again is compiled once: SQLAlchemy would keep each statement else."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine.interfaces import CacheStats
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Upkeep, figures, purgeable, refused, settled_until, status
from lethe_outbox.dead_letters.choosing import Which, find
from lethe_outbox.dead_letters.deciding import judge
from lethe_outbox.operations.listing import Wanted, rows
from lethe_outbox.operations.requeuing import count_failed, not_to_requeue, requeue

Asking = Callable[[AsyncEngine], Awaitable[object]]


async def settled(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await settled_until(connection, "orders.v1")


async def found(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await find(connection, Which(topic="orders.v1"))


async def requeued(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await not_to_requeue(connection, [1])
        await requeue(connection, [1])


ASKED: Final[Mapping[str, Asking]] = {
    "count_failed": count_failed,
    "figures": figures,
    "find": found,
    "judge": lambda engine: judge(engine, [1], None),
    "purgeable": lambda engine: purgeable(engine, timedelta(days=7)),
    "refused": refused,
    "requeue": requeued,
    "rows": lambda engine: rows(engine, Wanted()),
    "settled_until": settled,
    "status": status,
    "upkeep": lambda engine: Upkeep(engine).run(),
}


async def test_asked_again_nothing_is_compiled(engine: AsyncEngine) -> None:
    hits: dict[str, Counter[CacheStats]] = {}
    for name, ask in ASKED.items():
        await ask(engine)
        seen = hits.setdefault(name, Counter())

        def note(*execution: Any, seen: Counter[CacheStats] = seen) -> None:
            seen[execution[4].cache_hit] += 1

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        await ask(engine)
        event.remove(engine.sync_engine, "before_cursor_execute", note)
    assert [name for name, seen in hits.items() if not seen[CacheStats.CACHE_HIT]] == []
    assert [name for name, seen in hits.items() if seen[CacheStats.CACHE_MISS]] == []
