"""What an eraser holds in memory does not grow with the person."""

import gc
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import Deletion, Held
from lethe_eraser.storage import leftovers
from lethe_eraser.verify import client_rows, rows, verification
from tests.integration.eraser.world import World, put_in
from tests.support.no_objects import NoObjects

STRETCH: Final = 40
"""Client rows of a batch, and what verification reads and masks at once."""

REQUESTS: Final = 240
HEAVIER: Final = 8

EACH: Final = 48
"""Bytes that a request may cost while its person is erased: 5 MB for 100,000 of them, less than a
tenth of the smallest eraser. Verification keeps 8 for each client row in two scans."""


class NothingThere(NoObjects):
    """An S3 whose client keeps nothing: boto's caches fill for a while, whoever is erased."""

    async def missing(self, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        del refs
        return frozenset()

    def look_anew(self) -> None:
        """Nothing is believed of buckets that are not there."""

    async def remaining(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        del refs
        return frozenset()

    async def delete(self, refs: Sequence[ObjectRef], held: Held | None = None) -> Deletion:
        del held
        return Deletion(gone=frozenset(refs), failed={})


PERSON: Final = """
with made as (
  insert into sketch_feature (option, prompt, status, gpu)
  select jsonb_build_object('bucket', cast(:bucket as text),
      'key', 'uploads/' || :subject || '/' || n || '.png'), 'a prompt', 'done', 'a100'
  from generate_series(1, :requests) n returning id),
tasks as (
  insert into sketch_task (feature_id, result, gpu_name)
  select id, json_build_object('url', 'https://cdn.test.example/' || :subject || '-' || id), 'a100'
  from made)
insert into client (client_key, request_type, request_id, created_at)
  select :subject, 'sketch', id, '2024-03-01' from made
"""


@contextmanager
def traced(engine: AsyncEngine) -> Iterator[None]:
    """Trace what is allocated; what lies in cycles is let go regularly, not by chance."""
    statements = count()

    def let_go(*_: object) -> None:
        if next(statements) % 5 == 0:
            gc.collect()

    gc.collect()
    # What was there before is looked through no more, so that looking is cheap.
    gc.freeze()
    gc.disable()
    event.listen(engine.sync_engine, "before_cursor_execute", let_go)
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        event.remove(engine.sync_engine, "before_cursor_execute", let_go)
        gc.enable()
        gc.unfreeze()


async def peaks_of(world: World, requests: int) -> tuple[int, int]:
    """Erase a person of so many requests; gives the peaks in bytes of erasing and of verifying."""
    subject, ref = f"acct-of-{requests}", f"1.0f{requests}"
    await world.write(PERSON, subject=subject, requests=requests, bucket=world.buckets["uploads"])
    await world.accept(world.requested(ref=ref, subject=subject), ref=ref)
    eraser = world.eraser(batch_rows=STRETCH, objects=NothingThere())
    peaks: list[int] = []
    verify = eraser.verification.run

    def note() -> None:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    async def verified(*args: Any) -> Any:
        note()
        return await verify(*args)

    put_in(eraser.verification, "run", verified)
    with traced(world.engine):
        await eraser.until_idle()
        note()
    assert await world.state() == "verified"
    assert await world.value("select round from lethe.job where subject_ref = :r", r=ref) == 1
    assert await world.value("select count(*) from client where client_key = :s", s=subject) == 0
    erasing, verifying = peaks
    return erasing, verifying


async def test_the_memory_of_an_eraser_does_not_grow_with_the_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (leftovers, "_AT_ONCE"),
        (client_rows, "AT_ONCE"),
        (rows, "AT_ONCE"),
        (verification, "AT_ONCE"),
    ):
        monkeypatch.setattr(module, name, STRETCH)
    # What is compiled and kept once is there before anything is measured.
    await peaks_of(world, REQUESTS - 1)
    few = await peaks_of(world, REQUESTS)
    many = await peaks_of(world, HEAVIER * REQUESTS)
    allowed = EACH * (HEAVIER - 1) * REQUESTS
    erasing, verifying = (after - before for before, after in zip(few, many, strict=True))
    assert erasing < allowed
    assert verifying < allowed
