"""The client rows of a heavy person are masked in chunks, each with its own count, none twice."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from uuid_utils.compat import uuid7

from lethe_contracts.events import Blocked, Held, Released, TypeTotals
from lethe_contracts.states import BlockReason
from lethe_eraser.domain import MAX_ATTEMPTS
from lethe_eraser.verify import client_rows, rows, verification
from tests.faults.eraser.audit import of_sketches
from tests.integration.eraser.test_settling import SETTLE
from tests.integration.eraser.world import (
    NOTHING,
    OTHER,
    REF,
    SUBJECT,
    Eraser,
    Killed,
    World,
    make_catalog,
    put_in,
    to_the_end,
)

CHUNK = 4
REQUESTS = 11


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four client rows in a transaction."""
    for module in (client_rows, rows, verification):
        monkeypatch.setattr(module, "AT_ONCE", CHUNK)


@pytest.fixture
async def heavy(world: World) -> World:
    """A person with more client rows than go into two chunks, in both client tables."""
    for number in range(REQUESTS):
        await world.sketch(number, source="client" if number % 3 else "client_old")
    await world.document(1)
    await world.sketch(1, subject=OTHER)
    await world.accept(world.requested())
    return world


async def masked(world: World) -> int:
    """How many client rows the job says that it masked."""
    totals = await world.value("select totals from lethe.job order by created_at limit 1")
    return sum(of_type["client_rows"] for of_type in totals.values())


async def left(world: World) -> int:
    """How many client rows still name the person."""
    now = await world.left_of(SUBJECT)
    return now["client"] + now["client_old"]


def dying_after_chunk(eraser: Eraser, number: int) -> None:
    real = eraser.verification.client_rows.chunk
    calls = Counter[str]()

    async def chunk(*args: Any) -> Any:
        outcome = await real(*args)
        calls["all"] += 1
        if calls["all"] == number:
            raise Killed
        return outcome

    put_in(eraser.verification.client_rows, "chunk", chunk)


async def assert_erased_once(world: World) -> None:
    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.left_of(OTHER))["client"] == 1
    said = await world.said()
    assert said[-1].event.name == "verified"
    assert said[-1].event.totals == {
        "sketch": of_sketches(REQUESTS),
        "document": TypeTotals(feature_rows=1, client_rows=1, objects_gone=3),
    }


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_killed_between_chunks_what_was_masked_stays_and_is_counted_once(
    heavy: World, number: int
) -> None:
    dying = heavy.eraser()
    dying_after_chunk(dying, number)
    with pytest.raises(Killed):
        await dying.until_idle()
    so_far = await masked(heavy)
    assert 0 < so_far < REQUESTS + 1
    assert await left(heavy) == REQUESTS + 1 - so_far
    assert await heavy.state() == "erased"
    assert await to_the_end(heavy, heavy.eraser()) == "verified"
    await assert_erased_once(heavy)


async def test_one_chunk_is_one_transaction_of_no_more_than_so_many_rows(heavy: World) -> None:
    eraser = heavy.eraser()
    real = eraser.verification.client_rows.chunk
    grown: list[int] = []

    async def chunk(*args: Any) -> Any:
        before = await masked(heavy)
        outcome = await real(*args)
        grown.append(await masked(heavy) - before)
        return outcome

    put_in(eraser.verification.client_rows, "chunk", chunk)
    assert await to_the_end(heavy, eraser) == "verified"
    assert sum(grown) == REQUESTS + 1
    assert max(grown) == CHUNK
    await assert_erased_once(heavy)


async def test_a_client_row_that_comes_meanwhile_goes_round_again(heavy: World) -> None:
    """Its request was not looked at: to mask it would hide what the product writes there."""
    eraser = heavy.eraser()
    real = eraser.verification.client_rows.chunk
    late: list[int] = []

    async def chunk(*args: Any) -> Any:
        if not late:
            late.append(await heavy.sketch(100))
        return await real(*args)

    put_in(eraser.verification.client_rows, "chunk", chunk)
    assert await to_the_end(heavy, eraser) == "verified"
    assert await heavy.left_of(SUBJECT) == NOTHING
    assert await heavy.value("select round from lethe.job") == 2
    assert (await heavy.said())[-1].event.totals["sketch"] == of_sketches(REQUESTS + 1)


async def test_a_client_row_without_its_request_is_not_masked_before_a_round_saw_it(
    heavy: World,
) -> None:
    """The product writes the client row first and the request after it."""
    eraser = heavy.eraser()
    real = eraser.verification.client_rows.chunk
    feature = 10_000
    seen: list[bool] = []

    async def chunk(*args: Any) -> Any:
        if not seen:
            await heavy.client_row("sketch", feature)
        outcome = await real(*args)
        seen.append(
            await heavy.value(
                "select client_key = :s from client where request_id = :f", s=SUBJECT, f=feature
            )
        )
        return outcome

    put_in(eraser.verification.client_rows, "chunk", chunk)
    assert await to_the_end(heavy, eraser) == "verified"
    assert all(seen)
    assert await heavy.value("select round from lethe.job") == 2


async def test_what_the_product_writes_late_stops_the_chunks(heavy: World) -> None:
    eraser = heavy.eraser()
    real = eraser.verification.client_rows.chunk
    written: list[str] = []

    async def chunk(job: Any, subject: str, page: Any, *args: Any) -> Any:
        if not written and page.source == "client" and page.request_type == "sketch":
            written.append("a prompt")
            await heavy.write(
                "update sketch_feature set prompt = 'late' where id ="
                " (select min(request_id) from client where client_key = :s"
                "  and request_type = 'sketch')",
                s=SUBJECT,
            )
            outcome = await real(job, subject, page, *args)
            assert outcome is not None
            assert outcome.something_left
            assert await heavy.value(
                "select count(*) from client where client_key = :s and request_type = 'sketch'",
                s=SUBJECT,
            ) == len([n for n in range(REQUESTS) if n % 3])
            return outcome
        return await real(job, subject, page, *args)

    put_in(eraser.verification.client_rows, "chunk", chunk)
    assert await to_the_end(heavy, eraser) == "verified"
    assert written
    assert await heavy.value("select round from lethe.job") == 2
    assert await heavy.value("select count(*) from sketch_feature where prompt = 'late'") == 0
    assert await heavy.left_of(SUBJECT) == NOTHING


async def test_a_hold_between_chunks_leaves_the_rest(heavy: World) -> None:
    eraser = heavy.eraser()
    real = eraser.verification.client_rows.chunk
    hold = uuid7()
    held: list[int] = []

    async def chunk(*args: Any) -> Any:
        outcome = await real(*args)
        if not held:
            held.append(await left(heavy))
            await heavy.accept(Held(hold_id=hold))
        return outcome

    put_in(eraser.verification.client_rows, "chunk", chunk)
    await eraser.until_idle()
    assert await heavy.state() == "held"
    assert [await left(heavy)] == held
    await heavy.accept(Released(hold_id=hold))
    assert await to_the_end(heavy, heavy.eraser()) == "verified"
    await assert_erased_once(heavy)


async def test_the_client_rows_of_blocked_requests_stay_through_all_chunks(heavy: World) -> None:
    blocked = [
        await heavy.sketch(100 + number, url="https://elsewhere.example/a.png")
        for number in range(CHUNK + 2)
    ]
    assert await to_the_end(heavy, heavy.eraser()) == "blocked"
    stay = await heavy.rows(
        "select request_id from client where client_key = :s order by 1", s=SUBJECT
    )
    assert [row.request_id for row in stay] == blocked
    assert (await left(heavy)) == len(blocked)
    assert (await masked(heavy)) == REQUESTS + 1
    assert await heavy.value("select reasons from lethe.job") == {
        "unresolved_reference": len(blocked)
    }


async def test_a_person_who_is_called_as_masked_rows_are_is_blocked_at_once(heavy: World) -> None:
    """Nobody can tell whose these were: the erasure of everybody before would begin anew."""
    assert await to_the_end(heavy, heavy.eraser()) == "verified"
    before = await heavy.product()
    await heavy.accept(heavy.requested(ref="1.masked", subject="erased"), ref="1.masked")
    async with asyncio.timeout(60):
        assert await to_the_end(heavy, heavy.eraser()) == "blocked"
    assert await heavy.product() == before
    ended = (await heavy.said())[-1].event
    assert isinstance(ended, Blocked)
    assert ended.reasons == {BlockReason.UNCOVERED: 2}


async def test_a_request_that_stays_unfinished_is_blocked_and_keeps_its_client_row(
    heavy: World, tmp_path: Path
) -> None:
    """It is blocked after the scan, so the scan covered its client row, one of the first chunk."""
    heavy.catalog = make_catalog(tmp_path, heavy.buckets, SETTLE)
    stuck = await heavy.value("select min(request_id) from client where request_type = 'sketch'")
    await heavy.write("update sketch_feature set status = 'running' where id = :i", i=stuck)
    async with asyncio.timeout(60):
        assert await to_the_end(heavy, heavy.eraser()) == "blocked"
    stay = await heavy.rows(
        "select request_id from client where client_key = :s"
        " union all select feature_id from client_old where client_key = :s",
        s=SUBJECT,
    )
    assert [row.request_id for row in stay] == [stuck]
    assert await masked(heavy) == REQUESTS


async def test_a_chunk_leaves_the_client_rows_of_requests_that_are_left(heavy: World) -> None:
    """By type and id: a request of another type may have the same id, and is not left."""
    eraser = heavy.eraser()
    real = eraser.verification.client_rows.chunk
    named = (
        "select request_id from client where client_key = :s and request_type = 'sketch'"
        " order by request_id limit 2"
    )
    of_chunk: list[int] = []
    stayed: list[int] = []

    async def chunk(job: Any, subject: str, page: Any, covered: Any, known: rows.Known) -> Any:
        if stayed or (page.source, page.request_type) != ("client", "sketch"):
            return await real(job, subject, page, covered, known)
        of_chunk[:] = [row.request_id for row in await heavy.rows(named, s=SUBJECT)]
        left_behind = frozenset({("sketch", of_chunk[0]), ("document", of_chunk[1])})
        outcome = await real(job, subject, page, covered, replace(known, requests=left_behind))
        stayed[:] = [row.request_id for row in await heavy.rows(named, s=SUBJECT)]
        return outcome

    put_in(eraser.verification.client_rows, "chunk", chunk)
    assert await to_the_end(heavy, eraser) == "verified"
    assert stayed[0] == of_chunk[0]
    assert stayed[1] != of_chunk[1]


async def test_the_end_of_the_window_stops_between_chunks(heavy: World) -> None:
    eraser = heavy.eraser()
    real = eraser.verification.client_rows.chunk
    open_for = [2]

    async def chunk(*args: Any) -> Any:
        open_for[0] -= 1
        return await real(*args)

    async def mask(job: Any, subject: str, covered: Any, _may_go_on: Any) -> Any:
        return await real_mask(job, subject, covered, lambda: open_for[0] > 0)

    real_mask = eraser.verification.client_rows.mask
    put_in(eraser.verification.client_rows, "chunk", chunk)
    put_in(eraser.verification.client_rows, "mask", mask)
    conclude = eraser.verification.conclude

    async def concluding(job: Any, subject: str, scan: Any, _may_go_on: Any) -> Any:
        return await conclude(job, subject, scan, lambda: open_for[0] > 0)

    put_in(eraser.verification, "conclude", concluding)
    await eraser.executor.run_next(asyncio.Event())
    assert await heavy.state() == "erased"
    assert 0 < await masked(heavy) < REQUESTS + 1
    assert await to_the_end(heavy, heavy.eraser()) == "verified"
    await assert_erased_once(heavy)


async def test_statements_of_a_chunk_do_not_grow_with_its_rows(
    heavy: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    for at_once in (2, 8):
        for module in (client_rows, rows, verification):
            monkeypatch.setattr(module, "AT_ONCE", at_once)
        if counted:
            for number in range(REQUESTS):
                await heavy.sketch(200 + number)
            await heavy.accept(heavy.requested())
        eraser = heavy.eraser(batch_rows=50)
        real = eraser.verification.client_rows.chunk
        per_chunk: list[int] = []

        async def chunk(*args: Any, real: Any = real, per_chunk: list[int] = per_chunk) -> Any:
            with statements(heavy) as of_chunk:
                outcome = await real(*args)
            if args[2].request_type == "sketch" and args[2].source == "client":
                per_chunk.append(len(of_chunk))
            return outcome

        put_in(eraser.verification.client_rows, "chunk", chunk)
        assert await to_the_end(heavy, eraser) == "verified"
        counted.append(per_chunk[0])
    assert counted[0] == counted[1]


async def test_memory_of_the_scan_does_not_grow_with_the_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight bytes for each client row, and a stretch at a time of all else."""
    for module in (client_rows, rows, verification):
        monkeypatch.setattr(module, "AT_ONCE", 100)
    peaks: list[int] = []
    for many in (1_000, 11_000):
        await world.write("truncate client")
        await world.write(
            "insert into client (client_key, request_type, request_id, created_at)"
            " select :s, 'sketch', n, '2024-03-01' from generate_series(1, :n) n",
            s=SUBJECT,
            n=many,
        )
        async with world.engine.connect() as connection:
            await rows.read_rows(connection, world.catalog, uuid7(), SUBJECT)
            tracemalloc.start()
            found = await rows.read_rows(connection, world.catalog, uuid7(), SUBJECT)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert len(found.covered) == many
    grown = (peaks[1] - peaks[0]) / 10_000
    # A sorted list of the digests is there for a moment; tuples of keys would be ten times that.
    assert grown < 100, f"{grown:.0f} bytes for each client row"


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """Gather the statements that are sent while the block runs."""
    sent: list[str] = []

    def keep(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = world.engine.sync_engine
    event.listen(engine, "before_cursor_execute", keep)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", keep)


@pytest.mark.parametrize("keeps", ["return null", "new.client_key := old.client_key; return new"])
@pytest.mark.parametrize("subject", [SUBJECT, OTHER])
async def test_client_rows_that_a_trigger_keeps_are_never_called_verified(
    heavy: World, keeps: str, subject: str
) -> None:
    """Of a person with many and of one with few; the error is not forgotten between two tries."""
    await heavy.write(
        f"create function keep() returns trigger language plpgsql as $$ begin {keeps}; end $$"
    )
    await heavy.write(
        "create trigger keep before update on client_old for each row execute function keep()"
    )
    await heavy.sketch(100, url="https://elsewhere.example/a.png", subject=subject)
    await heavy.sketch(101, source="client_old", subject=subject)
    if subject == OTHER:
        await heavy.accept(heavy.requested(ref="1.other", subject=OTHER), ref="1.other")
    async with asyncio.timeout(60):
        await to_the_end(heavy, heavy.eraser())
    ended = "select state, attempts, error from lethe.job where subject_ref = :r"
    [job] = await heavy.rows(ended, r="1.other" if subject == OTHER else REF)
    assert tuple(job) == ("failed", MAX_ATTEMPTS, "NotMaskedError")
    kept = "select count(*) from client_old where client_key = :s"
    assert await heavy.value(kept, s=subject) == (1 if subject == OTHER else 5)
