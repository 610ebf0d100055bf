"""What happens in the moment between a relay's claim of a lane and the lane's first fetch."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import requeue
from lethe_outbox.relay.lease_storage import LeaseStorage
from tests.support.factories import TopicFactory
from tests.support.outbox_world import (
    QUICK,
    Running,
    append,
    append_apart,
    drained,
    events,
    key_in_lane,
    problems,
    running,
)
from tests.support.poison import SMALL, make_dlt, too_large
from tests.support.waiting import until

PROMPT = replace(QUICK, renew_seconds=0.3)


class Between:
    """Stops the next claim before its lanes begin, and counts what is taken over meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.taken_over = 0

    def install(self) -> None:
        held, marks = LeaseStorage.held, LeaseStorage.marks

        async def stopped(leases: LeaseStorage, buckets: Sequence[int]) -> dict[int, int]:
            answer = await held(leases, buckets)
            self.reached.set()
            await self.go_on.wait()
            return answer

        async def counted(leases: LeaseStorage) -> Any:
            answer = await marks(leases)
            self.taken_over += 1
            return answer

        self._monkeypatch.setattr(LeaseStorage, "held", stopped)
        self._monkeypatch.setattr(LeaseStorage, "marks", counted)


async def lanes_of(engine: AsyncEngine, relay: Running) -> list[int]:
    async with engine.connect() as connection:
        query = text("select distinct bucket % 16 from lethe.outbox_bucket where owner = :owner")
        owner = relay.relay._id
        return [row[0] for row in await connection.execute(query, {"owner": owner})]


async def test_a_row_requeued_between_the_claim_and_the_first_fetch_is_published(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lane's claim has not seen it, and the lane was not there when it was taken over."""
    name = await topic(config=SMALL)
    between = Between(monkeypatch)

    async def has_half(relay: Running) -> bool:
        return len(await lanes_of(engine, relay)) == 8

    async with running(database_url, kafka, PROMPT) as staying:
        leaving = Running(database_url, kafka, PROMPT)
        leaving.start()
        await until(lambda: has_half(staying), what="half of the lanes")
        await until(lambda: has_half(leaving), what="the other half")
        kept_key = key_in_lane((await lanes_of(engine, staying))[0])
        given_key = key_in_lane((await lanes_of(engine, leaving))[0])
        await append(engine, too_large(name, given_key))
        await leaving.reach("relay_dlt_failed_total", 1, topic=name)
        await make_dlt(kafka, name)
        between.install()
        await leaving.end()
        await asyncio.wait_for(between.reached.wait(), 20)
        async with engine.begin() as connection:
            assert await requeue(connection) == 1
        taken_over = between.taken_over
        await append_apart(engine, *events(name, [kept_key], 1))
        await staying.reach("relay_published_total", 1, topic=name)
        await until(lambda: between.taken_over > taken_over, what="a rewind that is taken over")
        between.go_on.set()
        await drained(engine)
    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []
