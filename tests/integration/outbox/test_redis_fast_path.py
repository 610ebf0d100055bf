"""Redis in front of the inbox: dead, flapping, silent or wiped, nothing changes but speed."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import redis.asyncio
from uuid_utils.compat import uuid7

from lethe_outbox import Inbox
from lethe_outbox.redis_fast_path import RedisFastPath
from tests.integration.outbox.conftest import Publish
from tests.integration.outbox.consuming import Harness, effects, running
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

ROUNDS = 6


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[TcpProxy]:
    address = urlsplit(redis_url)
    async with TcpProxy(address.hostname or "", address.port or 0).running() as running_proxy:
        yield running_proxy


@pytest.fixture
def patience() -> float:
    """Seconds: short where Redis is silent, and long enough for the answer of one that is not."""
    return 0.5


@pytest.fixture
async def fast_path(
    proxy: TcpProxy, redis_url: str, harness: Harness, patience: float
) -> AsyncIterator[RedisFastPath]:
    address = urlsplit(redis_url)
    host = f"{address.hostname}:{address.port}"
    url = redis_url.replace(host, f"127.0.0.1:{proxy.port}")
    found = RedisFastPath(
        url, harness.metrics, patience=timedelta(seconds=patience), rest=timedelta(0)
    )
    yield found
    await found.close()


def errors(harness: Harness) -> float:
    labels = {"group": harness.group}
    return harness.registry.get_sample_value("outbox_inbox_fast_path_errors_total", labels) or 0


def seen_all(harness: Harness, records: int) -> bool:
    return harness.count("handled") + harness.count("duplicate") == records


async def twice(publish: Publish, harness: Harness, value: str) -> UUID:
    """Publish an event, and publish it again."""
    event_id = await publish(harness.topic, value.encode())
    return await publish(harness.topic, value.encode(), event_id=event_id)


@pytest.mark.parametrize(("how", "patience"), [("cut", 0.1), ("silent", 0.1), ("wiped", 10.0)])
async def test_redis_that_comes_and_goes_changes_no_effect(
    harness: Harness,
    publish: Publish,
    proxy: TcpProxy,
    fast_path: RedisFastPath,
    redis_url: str,
    how: str,
) -> None:
    client = redis.asyncio.Redis.from_url(redis_url)
    ids: list[UUID] = []
    async with running(harness.runner(inbox=Inbox(fast_path=fast_path))):
        for number in range(ROUNDS):
            away = number % 2 == 0
            if how == "cut":
                proxy.close() if away else proxy.open()
            elif how == "silent":
                proxy.silence() if away else proxy.speak()
            else:
                await client.flushdb()
            ids.append(await twice(publish, harness, str(number)))
            for known in ids[:-1]:
                await publish(harness.topic, b"again", event_id=known)
            expected = sum(2 + one for one in range(number + 1))
            await until(partial(seen_all, harness, expected))
    await client.aclose()
    assert Counter(await effects(harness.engine)) == Counter(map(str, range(ROUNDS)))
    assert (errors(harness) > 0) == (how != "wiped")


async def test_a_late_answer_is_not_taken_for_that_of_another_question(
    proxy: TcpProxy, fast_path: RedisFastPath
) -> None:
    handled, new = [uuid7() for _ in range(3)], [uuid7() for _ in range(3)]
    await fast_path.mark("group", handled)
    assert await fast_path.known("group", handled) == set(handled)
    for _ in range(5):
        proxy.silence()
        assert await fast_path.known("group", handled) == frozenset()
        proxy.speak()
        assert await fast_path.known("group", new) == frozenset()


async def test_one_that_hangs_is_left_alone_for_a_while(
    proxy: TcpProxy, redis_url: str, harness: Harness
) -> None:
    address = urlsplit(redis_url)
    url = redis_url.replace(f"{address.hostname}:{address.port}", f"127.0.0.1:{proxy.port}")
    resting = RedisFastPath(
        url, harness.metrics, patience=timedelta(milliseconds=50), rest=timedelta(hours=1)
    )
    proxy.silence()
    for _ in range(100):
        assert await resting.known(harness.group, [uuid7()]) == frozenset()
        await resting.mark(harness.group, [uuid7()])
    assert errors(harness) == 1
    await resting.close()
