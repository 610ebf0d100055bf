"""A server goes away and comes back: reporting says so, loses nothing, and goes on by itself."""

from typing import Any

from lethe_contracts.events import Accepted, Started
from lethe_sandbox.stack import Stack
from tests.integration.reporting.running import Service
from tests.integration.reporting.story import Story
from tests.support.waiting import until


async def dependency(service: Service, name: str) -> dict[str, Any]:
    report = (await service.client.get("/readyz")).json()
    found: dict[str, Any] = report["dependencies"][name]
    return found


def away(service: Service, name: str) -> Any:
    async def asked() -> bool:
        return bool((await dependency(service, name))["status"] == "away")

    return asked


def reached(service: Service, story: Story, state: str) -> Any:
    async def asked() -> bool:
        return await service.state(story.request_id) == state

    return asked


async def test_the_database_away_and_back(running_stack: Stack, service: Service) -> None:
    story = Story()
    await service.publish(story.asked())
    await until(reached(service, story, "requested"), what="requested")
    running_stack.stop("postgres", kill=True)
    try:
        await service.publish(story.says(Accepted, not_before=story.begun))
        await until(away(service, "database"), what="the database away")
        assert (await service.client.get("/readyz")).status_code == 503
        assert (await service.client.get("/healthz")).status_code == 200
        answer = await service.client.get(f"/v1/requests/{story.request_id}")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"]
    finally:
        running_stack.start("postgres")
    await until(reached(service, story, "accepted"), what="accepted", within=60)
    await until(service.ready, what="ready again", within=60)
    assert len(await service.rows("select 1 from lethe.event_log")) == 2
    assert await service.dead_letters("all") == []
    lines = service.log.getvalue()
    assert '"dependency": "database"' in lines
    assert "postgresql+psycopg" not in lines


async def test_the_broker_away_and_back(running_stack: Stack, service: Service) -> None:
    story = Story()
    await service.publish(story.asked())
    await until(reached(service, story, "requested"), what="requested")
    running_stack.stop("kafka")
    try:
        await until(away(service, "kafka"), what="the broker away", within=60)
        assert await service.state(story.request_id) == "requested"
    finally:
        running_stack.start("kafka")
    await until(service.ready, what="ready again", within=90)
    await service.publish(story.says(Started))
    await until(reached(service, story, "running"), what="running", within=90)


async def test_without_redis_it_is_slower_and_as_right(
    running_stack: Stack, service: Service
) -> None:
    story = Story()
    life = story.life()
    running_stack.stop("redis")
    try:
        await service.publish(*life, *life)
        await until(reached(service, story, "verified"), what="verified")
        await until(away(service, "redis"), what="Redis away")
        assert await service.ready()
    finally:
        running_stack.start("redis")
    assert len(await service.rows("select 1 from lethe.event_log")) == len(life)
    errors = service.counted("outbox_inbox_fast_path_errors_total", group="lethe-reporting")
    assert errors > 0
