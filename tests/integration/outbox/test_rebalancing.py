"""A group of two on a real broker: who joins amid traffic stops nobody."""

from dataclasses import replace

from lethe_outbox import ConsumerRunner, Inbox
from tests.integration.outbox.conftest import Publish
from tests.integration.outbox.consuming import SETTINGS, Harness, key_of, note, running
from tests.support.waiting import until

# Long beside the time between two records: each member waits for one nearly all the time.
WAITING = replace(SETTINGS, poll_seconds=2)


async def test_records_that_come_while_a_member_joins_are_handled(
    harness: Harness, kafka: str, publish: Publish
) -> None:
    joined: list[frozenset[int]] = []
    second = ConsumerRunner(
        harness.engine,
        kafka,
        harness.group,
        [harness.topic],
        note,
        Inbox(),
        harness.metrics,
        settings=WAITING,
        on_assigned=joined.append,
    )
    sent = 0

    async def shared() -> bool:
        nonlocal sent
        await publish(harness.topic, b"one", key=key_of(sent % 2))
        sent += 1
        return any(len(partitions) == 1 for partitions in joined)

    async with running(harness.runner(settings=WAITING)):
        await until(lambda: harness.gauge("outbox_consumer_lag") is not None, what="a member")
        async with running(second):
            await until(shared, every=0.3, what="each has a partition")
            await until(lambda: harness.count("handled") == sent, what="every record")
