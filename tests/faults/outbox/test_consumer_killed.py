"""Consumers that are killed or frozen between any two steps: each event's effect once."""

import asyncio
import signal
from functools import partial

import redis.asyncio

from tests.faults.outbox.conftest import Group, Groups
from tests.support.fail_points import FailPoint
from tests.support.waiting import until

POINTS = [
    FailPoint("handle", "after"),  # before the commit
    FailPoint("mark in Redis", "before"),  # after the commit, before anything else
    FailPoint("mark in Redis", "after"),  # before the offsets
    FailPoint("send a dead letter", "after"),  # told, sent, and the offset not moved on
]
PATIENCE = 90.0


async def test_killed_between_any_two_steps_each_effect_happens_once(groups: Groups) -> None:
    made = [await groups.make() for _ in POINTS]
    await asyncio.gather(*(group.publish(30, poison_at=25) for group in made))
    for group, point in zip(made, POINTS, strict=True):
        group.start(point)
    for group, point in zip(made, POINTS, strict=True):
        code = await until(group.processes[0].poll, within=PATIENCE, what=f"death {point}")
        assert code == -signal.SIGKILL, group.log.read_text()[-4000:]
        if point.step == "handle":
            # Killed before the commit: nothing of the batch is there.
            assert group.rows("effect") == []
        group.start()
    for group, point in zip(made, POINTS, strict=True):
        await until(group.done, within=PATIENCE, what=f"every effect after {point}")
        await until(partial(_settled, group), within=PATIENCE, what=f"offsets {point}")
    for group, point in zip(made, POINTS, strict=True):
        group.processes[-1].terminate()
        assert await asyncio.to_thread(group.processes[-1].wait, 30) == 0
        assert group.rows("effect") == sorted(group.events), point
        # Its dead letter may be there twice, its event id is the same, and nothing else is there.
        assert set(await group.dead_letters()) == set(group.poison), point
        assert set(group.rows("told")) == set(group.poison), point
        assert await _known_to_redis(group) <= set(group.events), point


async def _settled(group: Group) -> bool:
    return await group.behind() == 0


async def _known_to_redis(group: Group) -> set[str]:
    client = redis.asyncio.Redis.from_url(group.wanted.redis_url)
    try:
        keys = [key.decode() async for key in client.scan_iter(f"inbox:{group.wanted.group}:*")]
    finally:
        await client.aclose()
    return {key.rsplit(":", 1)[1] for key in keys}


async def test_frozen_in_the_middle_of_a_batch_past_its_session_it_does_no_harm(
    groups: Groups,
) -> None:
    group = await groups.make()
    await group.publish(30)
    frozen = group.start(FailPoint("handle", "after", send="SIGSTOP"))
    await until(partial(_stopped, frozen.pid), within=PATIENCE, what="a frozen consumer")
    # Its partitions move; it holds a transaction with the first batch until somebody ends that.
    other = group.start()
    await until(partial(_assignments, group, 2), within=PATIENCE, what="the other's partitions")
    assert group.end_idle_transactions() >= 1
    await until(group.done, within=PATIENCE, what="every effect")
    await until(partial(_settled, group), within=PATIENCE, what="offsets")
    frozen.send_signal(signal.SIGCONT)
    await group.publish(10)
    await until(group.done, within=PATIENCE, what="what came later")
    assert frozen.poll() is None
    for process in (frozen, other):
        process.terminate()
    for process in (frozen, other):
        assert await asyncio.to_thread(process.wait, 30) == 0
    assert group.rows("effect") == sorted(group.events)
    assert await group.behind() == 0


def _stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - no file of anybody's
        return file.read().rsplit(")", 1)[1].split()[0] == "T"


async def test_members_that_come_and_go_amid_batches_lose_and_double_nothing(
    groups: Groups,
) -> None:
    group = await groups.make()
    group.start()
    await until(partial(_assignments, group, 1), within=PATIENCE, what="the first member")
    for count in (100, 60):
        await group.publish(count)
        before = _assignments(group)
        member = group.start()
        await until(partial(_assignments, group, before + 2), within=PATIENCE, what="both")
        member.terminate()
        assert await asyncio.to_thread(member.wait, 30) == 0
        await until(partial(_assignments, group, before + 3), within=PATIENCE, what="one again")
        await until(group.done, within=PATIENCE, what="every effect")
    await until(partial(_settled, group), within=PATIENCE, what="offsets")
    assert group.rows("effect") == sorted(group.events)
    assert await group.dead_letters() == []


def _assignments(group: Group, wanted: int = 0) -> int:
    """How often a member was given partitions; 0 before it was `wanted` times."""
    count = group.log.read_text().count("Setting newly assigned partitions")
    return count if count >= wanted else 0
