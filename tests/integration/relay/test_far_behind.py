"""A position that lies far behind: what one statement visits on its way is bounded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message, RelaySettings
from lethe_outbox.message import bucket_of
from lethe_outbox.relay.lane import Lane
from lethe_outbox.relay.session import Session
from lethe_outbox.relay.storage import RelayStorage
from lethe_outbox.schema import Status
from tests.integration.relay.test_counts import Reader, count, read_by_index
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge, repetitions
from tests.support.outbox_world import (
    OUTBOX,
    append,
    events,
    key_in_lane,
    read_topics,
    running,
    stored,
)
from tests.support.waiting import until

ROWS = 100_000
STEP = 10_000
SWEPT = 12_500
NEVER = 3600.0
STEADY = RelaySettings(
    ids_per_fetch=STEP,
    lease_seconds=NEVER,
    sample_seconds=NEVER,
    janitor_seconds=0,
    sweep_seconds=NEVER,
)
"""One that reads what it reads once, however busy the machine is."""
BLIND = replace(STEADY, listen=False, poll_min_seconds=NEVER, poll_max_seconds=NEVER)
"""A relay that pauses once goes on when the test is long over."""
_FILL = text(
    "insert into lethe.outbox (event_id, topic, key, bucket, payload, headers, status)"
    " select uuidv7(), 't', 'sent', g % 256, 'x', '', :status from generate_series(1, :rows) g"
)


async def fill(engine: AsyncEngine) -> None:
    """Commit rows of all buckets in turn, as if a relay had long published them."""
    async with engine.begin() as connection:
        await connection.execute(_FILL, {"rows": ROWS, "status": Status.SENT})


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows of the outbox each fetch of any relay visited, as the server counts them."""
    real = RelayStorage._read
    seen: list[int] = []

    async def read(
        storage: RelayStorage, statement: str, lanes: Sequence[Lane], *more: object
    ) -> list[Any]:
        explained: Any = await real(
            storage, f"explain (analyze, format json) {statement}", lanes, *more
        )
        seen.append(_visited(explained[0][0][0]["Plan"], "r"))
        return await real(storage, statement, lanes, *more)

    monkeypatch.setattr(RelayStorage, "_read", read)
    return seen


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Likewise for each statement of a sweep."""
    real = RelayStorage.stragglers
    seen: list[int] = []

    async def stragglers(
        storage: RelayStorage, low_waters: Mapping[int, int], above: int, up_to: int
    ) -> dict[int, int]:
        marks = ",".join(map(str, low_waters)), ",".join(map(str, low_waters.values()))
        explained = await storage.session.watcher.execute(
            f"explain (analyze, format json) {storage._stragglers}",
            (*(f"{{{values}}}" for values in marks), above, up_to),
        )
        [[[plan]]] = await explained.fetchall()
        seen.append(_visited(plan["Plan"], "o"))
        return await real(storage, low_waters, above, up_to)

    monkeypatch.setattr(RelayStorage, "stragglers", stragglers)
    return seen


def _visited(plan: Mapping[str, Any], alias: str) -> int:
    found = sum(_visited(part, alias) for part in plan.get("Plans", []))
    if plan.get("Alias", "").split("_")[0] == alias:
        # Per loop the server gives means, rounded.
        each = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        found += round(each * plan["Actual Loops"])
    return found


async def test_behind_a_writer_that_was_open_for_long_no_fetch_visits_everything(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, visited: list[int]
) -> None:
    """Neither when a relay starts beside it, nor when it has ended."""
    name = await topic()
    async with engine.connect() as late:
        await late.begin()
        await OUTBOX.append_async(late, Message(name, "late", b"first"))
        await fill(engine)
        await append(engine, Message(name, "other", b"beside"))
        async with running(database_url, kafka, STEADY) as relay:
            await relay.reach("relay_acknowledged_total", 1)
            await late.commit()
            await append(engine, Message(name, "late", b"second"))
            await relay.reach("relay_acknowledged_total", 3)
    assert max(visited) <= STEP * 1.05
    # Passed twice: beside the writer and, because it may have left a row anywhere, after its end.
    assert ROWS * 1.9 <= sum(visited) <= ROWS * 2.5
    mine = [row for row in await stored(engine) if row.key != "sent"]
    records = await read_topics(kafka, [name])
    assert judge(mine, records) == []
    assert repetitions(records) == 0


async def test_rows_that_are_sent_are_passed_without_a_pause(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    await fill(engine)
    await append(engine, Message(name, "key", b"first"))
    async with running(database_url, kafka, BLIND) as relay:
        await relay.reach("relay_acknowledged_total", 1)


async def draw(engine: AsyncEngine, last: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("select setval('lethe.outbox_id_seq', :last)"), {"last": last}
        )


async def test_a_gap_in_the_ids_is_passed_at_once(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    await append(engine, Message(name, "key", b"first"))
    await draw(engine, 10**15)
    await append(engine, Message(name, "key", b"second"))
    async with running(database_url, kafka, BLIND) as relay:
        await relay.reach("relay_acknowledged_total", 2)
        assert count(relay, "fetch") < 5


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Where relays looked for a row of any status."""
    real = RelayStorage.empty_until
    seen: list[tuple[int, int]] = []

    async def empty_until(storage: RelayStorage, above: int, up_to: int) -> int:
        seen.append((above, up_to))
        return await real(storage, above, up_to)

    monkeypatch.setattr(RelayStorage, "empty_until", empty_until)
    return seen


async def test_beside_an_open_writer_a_gap_is_passed_in_large_steps(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    gaps: list[tuple[int, int]],
) -> None:
    """It may have filled it, and its rows would be visited for nothing to see."""
    name = await topic()
    async with engine.connect() as late:
        await OUTBOX.append_async(late, Message(name, "late", b"first"))
        await draw(engine, 100 * STEP)
        await append(engine, Message(name, "key", b"first"))
        async with running(database_url, kafka, BLIND) as relay:
            await relay.reach("relay_acknowledged_total", 1)
            assert count(relay, "fetch") < 10
    assert gaps
    assert max(up_to - above for above, up_to in gaps) <= 20 * STEP


async def test_in_a_backlog_nobody_looks_for_gaps(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    gaps: list[tuple[int, int]],
) -> None:
    name = await topic()
    keys = [key_in_lane(lane, number) for lane in range(16) for number in range(4)]
    rows = events(name, keys, 4 * STEP // len(keys))
    await append(engine, *rows)
    async with running(database_url, kafka, STEADY) as relay:
        await relay.reach("relay_acknowledged_total", len(rows), within=60)
    assert gaps == []


@pytest.mark.parametrize("analysed", [False, True], ids=["no statistics", "analysed empty"])
async def test_what_a_statement_visits_of_rows_that_nobody_sees_is_bounded(
    engine: AsyncEngine, database_url: str, *, analysed: bool
) -> None:
    """As of a writer that is open and has written very many."""
    if analysed:
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("vacuum analyze lethe.outbox"))
    async with engine.connect() as late, Session(database_url, "reader") as session:
        await late.execute(_FILL, {"rows": 5 * STEP, "status": Status.PENDING})
        before = await read_by_index(engine)
        reader = Reader(session)
        lanes = await reader.lanes()
        limits = {number: 16 for lane in lanes for number in lane.buckets}
        ends = dict.fromkeys(limits, STEP)
        assert await reader.storage.fetch(lanes, limits, ends) == []
        assert await reader.storage.empty_until(STEP, 3 * STEP) == 3 * STEP
        await session.reader.execute("select pg_stat_force_next_flush()")

        after = await read_by_index(engine)
    assert {name: read - before[name] for name, read in after.items()} == {
        "bucket": STEP,
        "id": 2 * STEP,
        "table": 0,
    }


async def test_no_statement_of_a_sweep_visits_all_that_was_sent_of_one_key(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, swept: list[int]
) -> None:
    """While one runs, nobody looks at the writers, and nothing goes out."""
    name = await topic()
    async with engine.begin() as connection:
        await connection.execute(_FILL, {"rows": ROWS, "status": Status.SENT})
        of_one_key = text("update lethe.outbox set bucket = :bucket")
        await connection.execute(of_one_key, {"bucket": bucket_of("sent")})
    await append(engine, Message(name, "key", b"first"))
    settings = replace(STEADY, renew_seconds=0.2, sweep_seconds=0.2)
    async with running(database_url, kafka, settings):
        await until(lambda: sum(swept) >= ROWS, within=40, what="a sweep of all rows")
    assert max(swept) <= SWEPT * 1.05
