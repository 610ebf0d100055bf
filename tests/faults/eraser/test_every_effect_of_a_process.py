"""The real process is killed with SIGKILL before every effect of an erasure; the next ends it.

What it does passes through proxies, which see its effects and let it come so far and no further.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from sqlalchemy.engine import make_url

from lethe_eraser.consumer import GROUP
from lethe_sandbox.stack import S3Address
from tests.faults.eraser.audit import assert_erased_once, assert_traceable
from tests.faults.eraser.test_every_effect import EXPECTED, fill, one_of_many
from tests.faults.eraser.test_process import end_of, environment, publish
from tests.integration.eraser.world import World
from tests.support.forked import forked
from tests.support.lives import Life, OnPostgres, OnS3
from tests.support.tcp_proxy import TcpProxy
from tests.support.topics import evict
from tests.support.waiting import until

__all__ = ["environment"]

WITHIN: Final = 120


class Mortal:
    """An eraser that is begun again and again, each time to be killed."""

    def __init__(
        self, environment: Mapping[str, str], database_url: str, s3: S3Address, log: Path
    ) -> None:
        # One worker: then what happens before an effect is what happened before it last time.
        self._environment = {
            **environment,
            "LETHE_ERASER_BATCH_ROWS": "2",
            "LETHE_ERASER_CONCURRENCY": "1",
        }
        self._database = make_url(database_url)
        self._s3 = urlsplit(s3.endpoint)
        self._log = log

    @asynccontextmanager
    async def lives(self) -> AsyncIterator[Life]:
        """A process, killed at the end of the block; what was held back then never happened."""
        life = Life()
        database = TcpProxy(
            self._database.host or "", self._database.port or 5432, partial(OnPostgres, life)
        )
        s3 = TcpProxy(self._s3.hostname or "", self._s3.port or 0, partial(OnS3, life))
        async with database.running(), s3.running():
            by = self._database.set(host="127.0.0.1", port=database.port)
            environment = {
                **self._environment,
                "LETHE_ERASER_DATABASE_URL": by.render_as_string(hide_password=False),
                "LETHE_ERASER_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
            }
            with forked(environment, self._log, "eraser", "run"):
                try:
                    yield life
                except AssertionError as failure:
                    failure.add_note(f"the eraser said last:\n{end_of(self._log)}")
                    raise
            life.end()


@pytest.fixture
def mortal(
    environment: Mapping[str, str], database_url: str, s3: S3Address, tmp_path: Path
) -> Mortal:
    return Mortal(environment, database_url, s3, tmp_path / "eraser.log")


async def _is_verified(world: World, ref: str) -> bool:
    query = "select count(*) from lethe.job where subject_ref = :ref and state = 'verified'"
    return bool(await world.value(query, ref=ref))


async def _came_so_far(world: World, life: Life, ref: str) -> bool:
    return life.reached.is_set() or await _is_verified(world, ref)


async def _verified(world: World, ref: str) -> None:
    await until(partial(_is_verified, world, ref), within=WITHIN, what="a verified job")


async def test_a_real_process_killed_before_every_effect(
    world: World, mortal: Mortal, kafka: str, tmp_path: Path
) -> None:
    """Each process ends what the last one left, and gets one effect further with a new person."""
    await fill(world, tmp_path, {})
    left_behind = None
    died = 0
    while True:
        async with mortal.lives() as life:
            if left_behind is not None:
                subject, ref, before = left_behind
                await _verified(world, ref)
                await assert_erased_once(world, before, subject, EXPECTED)
            subject, ref, before = left_behind = await one_of_many(world, died)
            life.count_from_here(died)
            await publish(world, kafka, world.requested(ref=ref, subject=subject), ref=ref)

            await until(
                partial(_came_so_far, world, life, ref), within=WITHIN, what="the effect or the end"
            )
            if not life.reached.is_set():
                break
        await evict(kafka, GROUP)
        await assert_traceable(world, before, subject)
        died += 1
    # The last one had every effect: it is judged like the others.
    await assert_erased_once(world, before, subject, EXPECTED)
    assert len(life.seen) > 10
    assert set(life.seen) == {"commit", "DeleteObjects"}
