"""SIGTERM to the real process in the middle of a heavy person: it ends in time, at a boundary."""

import asyncio
import json
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import text

from lethe_contracts.events import BatchErased
from lethe_sandbox.stack import S3Address
from tests.faults.eraser.audit import (
    Before,
    assert_erased_once,
    assert_traceable,
    assert_whole_rows,
    look,
    of_sketches,
)
from tests.faults.eraser.test_process import environment, publish, running
from tests.faults.eraser.test_two_processes import by, says
from tests.integration.eraser.world import OTHER, SUBJECT, World, until_state
from tests.support.lives import Life, OnS3
from tests.support.s3_objects import put
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

__all__ = ["environment"]

REQUESTS: Final = 300
BATCH: Final = 25
BATCHES: Final = REQUESTS // BATCH
STOP_SECONDS: Final = 5
EXPECTED: Final = {"sketch": of_sketches(REQUESTS)}


async def heavy(world: World, s3: S3Address) -> Before:
    """A person with several hundred requests, as `World.sketch` makes them, and somebody else."""
    uploads = [f"uploads/{SUBJECT}/{number}.png" for number in range(REQUESTS)]
    results = [f"{SUBJECT}-{number}.png" for number in range(REQUESTS)]
    put(s3, world.buckets["uploads"], uploads)
    put(s3, world.buckets["results"], [f"public/{name}" for name in results])
    rows = [
        {
            "o": json.dumps({"bucket": world.buckets["uploads"], "key": upload}),
            "r": json.dumps({"url": f"https://cdn.test.example/{result}"}),
            "s": SUBJECT,
        }
        for upload, result in zip(uploads, results, strict=True)
    ]
    request = text(
        "with feature as (insert into sketch_feature (option, prompt, status, gpu)"
        " values (cast(:o as jsonb), 'a prompt', 'done', 'a100') returning id),"
        " task as (insert into sketch_task (feature_id, result, gpu_name)"
        " select id, :r, 'a100' from feature)"
        " insert into client (client_key, request_type, request_id, created_at)"
        " select :s, 'sketch', id, '2024-03-01' from feature"
    )
    async with world.engine.begin() as connection:
        await connection.execute(request, rows)
    await world.sketch(1, subject=OTHER)
    return await look(world)


async def _begun(world: World, *, masked: bool) -> int:
    query = "select count(*) from lethe.journal where masked = :masked"
    return int(await world.value(query, masked=masked))


async def _two_wait_for_s3(world: World) -> bool:
    """Whether two batches are begun, and the first has its objects: neither can be masked."""
    masked = await _begun(world, masked=True)
    left = max(len(world.keys(bucket)) for bucket in ("uploads", "results"))
    of_somebody_else = 1
    waits = left - of_somebody_else == REQUESTS - masked * BATCH
    return waits and await _begun(world, masked=False) == 2


async def test_sigterm_amid_a_heavy_person_ends_in_time_at_a_batch_boundary(
    world: World, environment: Mapping[str, str], kafka: str, s3: S3Address, tmp_path: Path
) -> None:
    before = await heavy(world, s3)
    log = tmp_path / "eraser.log"
    # Exit 0 says that it ended within the time it was given; it judges that itself.
    environment = {
        **environment,
        "LETHE_ERASER_BATCH_ROWS": str(BATCH),
        "LETHE_ERASER_DRAIN_SECONDS": str(STOP_SECONDS),
    }
    await publish(world, kafka, world.requested())
    there = urlsplit(s3.endpoint)
    life = Life(stop_before=5)
    proxy = TcpProxy(there.hostname or "", there.port or 0, partial(OnS3, life))
    async with proxy.running():
        with running(by(proxy, environment), log) as process:
            await asyncio.wait_for(life.reached.wait(), 60)

            await until(partial(_two_wait_for_s3, world), within=60, what="two batches under way")
            masked = await _begun(world, masked=True)
            process.send_signal(signal.SIGTERM)
            await until(partial(says, log, "draining"), within=60, what="a signal that is heard")
            life.go_on()
            # Hangs only if the limit it was given is none.
            assert await asyncio.to_thread(process.wait, 60) == 0
    assert not says(log, "did not finish in time")

    begun = masked + 2
    assert 2 < begun < BATCHES
    assert await _begun(world, masked=False) == 0
    assert await _begun(world, masked=True) == begun
    left = await assert_whole_rows(world, before)
    for table in ("sketch_feature", "sketch_task"):
        assert len(left[table]) - 1 == REQUESTS - begun * BATCH
    assert await world.state() == "running"
    await assert_traceable(world, before, SUBJECT)

    with running(environment, log):
        await until_state(world, "verified", within=120)
    await assert_erased_once(world, before, SUBJECT, EXPECTED)
    told = [one.event.batch for one in await world.said() if isinstance(one.event, BatchErased)]
    assert [number for number in told if number <= BATCHES] == list(range(1, BATCHES + 1))
    assert await world.value("select generation from lethe.job") == 2
