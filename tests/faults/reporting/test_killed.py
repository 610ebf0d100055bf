"""Killed anywhere, reporting goes on where it was: nothing lost, nothing twice."""

import signal

import httpx
import psycopg

from lethe_reporting.consumer import DEAD_LETTER_GROUP, GROUP
from tests.integration.reporting.process import Processes
from tests.integration.reporting.running import make_key
from tests.integration.reporting.story import Story
from tests.support.serving import client
from tests.support.topics import evict
from tests.support.waiting import until


def counted(url: str, query: str) -> int:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


async def test_killed_amid_the_work_it_ends_with_every_event_once(
    processes: Processes, reporting_url: str, kafka: str
) -> None:
    stories = [Story() for _ in range(150)]
    lives = [story.life() for story in stories]
    words = [word for step in zip(*lives, strict=True) for word in step]
    process = await processes.start()
    await processes.publish(words)

    def logged() -> int:
        return counted(reporting_url, "select count(*) from lethe.event_log")

    await until(logged, what="the first batch", within=60)
    assert await processes.stop(process, signal.SIGKILL) == -signal.SIGKILL
    for group in (GROUP, DEAD_LETTER_GROUP):
        await evict(kafka, group)

    again = await processes.start()
    verified = "select count(*) from lethe.request where state = 'verified'"
    await until(
        lambda: counted(reporting_url, verified) == len(stories), what="all verified", within=90
    )
    # Of a request the eraser's last word may be there before intake's first.
    await until(lambda: logged() >= len(words), what="every event", within=60)
    assert await processes.stop(again, signal.SIGTERM) == 0
    assert logged() == len(words)
    whole = (
        "select count(*) from lethe.request where team = 'support' and totals_sequence = 6 "
        "and (totals -> 'upscale' ->> 'feature_rows')::int = 9"
    )
    assert counted(reporting_url, whole) == len(stories)
    assert counted(reporting_url, "select count(*) from lethe.dead_letter") == 0


async def test_started_before_its_migration_it_waits_for_it(
    processes: Processes, reporting_url: str
) -> None:
    sync = reporting_url.replace("+psycopg", "")
    key = make_key(reporting_url)
    with psycopg.connect(sync, autocommit=True) as connection:
        connection.execute("alter table lethe.alembic_version_reporting rename to put_away")
        try:
            process = await processes.start()
            async with client(await processes.url(process), key) as http:

                async def said() -> httpx.Response | None:
                    answer = await http.get("/readyz")
                    return answer if "NotMigratedError" in answer.text else None

                await until(said, what="waiting for the migration")
                assert (await http.get("/v1/requests")).status_code == 503
                connection.execute("alter table lethe.put_away rename to alembic_version_reporting")

                async def ready() -> bool:
                    return (await http.get("/readyz")).status_code == 200

                await until(ready, what="ready", within=60)
                assert (await http.get("/v1/requests")).status_code == 200
        finally:
            connection.execute(
                "alter table if exists lethe.put_away rename to alembic_version_reporting"
            )
    assert await processes.stop(process, signal.SIGTERM) == 0
