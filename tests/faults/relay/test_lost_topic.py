"""A topic that is gone while the relay works: deleted for good, or made anew."""

from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import TopicSpec, ensure_topics
from lethe_outbox.operations.requeuing import refused
from lethe_outbox.schema import Status
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge
from tests.support.outbox_world import (
    QUICK,
    append_apart,
    buried,
    drained,
    events,
    read_topics,
    running,
    statuses,
    stored,
)
from tests.support.poison import make_dlt
from tests.support.relays import KEYS
from tests.support.topics import delete

IMPATIENT = replace(QUICK, publish_seconds=1.0)
# The topic is unknown for a moment on a busy machine, too.
PATIENT = replace(IMPATIENT, unknown_topic_seconds=20)


@pytest.mark.parametrize("partitions", [16, 5])
async def test_a_topic_that_was_made_anew_gets_what_is_appended_from_then_on(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, partitions: int
) -> None:
    name = await topic()
    async with running(database_url, kafka, PATIENT) as relay:
        await append_apart(engine, *events(name, KEYS, 3))
        await drained(engine)
        lost = len(await stored(engine))
        await delete(kafka, name)
        await ensure_topics(kafka, [TopicSpec(name, partitions)])
        await append_apart(engine, *events(name, KEYS, 2))
        await drained(engine, within=60)
        noticed = len(await stored(engine))
        await append_apart(engine, *events(name, KEYS, 3))
        await drained(engine)
        assert relay.value("relay_dlt_failed_total", topic=name) == 0
    rows = (await stored(engine))[lost:]
    records = await read_topics(kafka, [name])
    assert {row.event_id for row in rows} == {record.event_id for record in records}
    assert {row.status for row in rows} == {Status.SENT}
    if partitions != 16:
        # No answer says how many partitions there are: until one that is no more refuses its
        # records, keys lie where they would have lain in the topic before.
        rows = rows[noticed - lost :]
        known = {row.event_id for row in rows}
        records = [record for record in records if record.event_id in known]
    assert judge(rows, records, buried=await buried(engine)) == []


async def test_the_rows_of_a_topic_that_is_gone_are_set_aside_and_others_go_on(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    gone, other = await topic(), await topic()
    await make_dlt(kafka, gone)
    async with running(database_url, kafka, IMPATIENT):
        await append_apart(engine, *events(gone, KEYS, 2), *events(other, KEYS, 2))
        await drained(engine)
        lost = len(KEYS) * 2
        await delete(kafka, gone)
        await append_apart(engine, *events(gone, KEYS[:4], 2), *events(other, KEYS, 2))
        await drained(engine, within=90)
    rows = [row for row in await stored(engine) if row.topic == other or row.id > 2 * lost]
    records = await read_topics(kafka, [other, f"{gone}.DLT"])
    assert judge(rows, records, buried=await buried(engine)) == []
    assert (await statuses(engine)).count(Status.DEAD_LETTERED) == 8
    assert {row.reason for row in await refused(engine)} == {"unknown_topic"}
