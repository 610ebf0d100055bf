"""Everything that speaks to Kafka gets through to brokers that ask who it is."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import (
    BrokerAwayError,
    Brokers,
    ConsumerMetrics,
    ConsumerRunner,
    DeadLetterReader,
    Fate,
    Inbox,
    Message,
    ReplayOptions,
    TopicSettingsProbe,
    TopicSpec,
    TopicsProbe,
    Which,
    ensure_topics,
    initialise_group,
    replay,
    with_dead_letters,
)
from lethe_outbox.dead_letters.choosing import find
from lethe_sandbox.stack import Folders, Instance
from lethe_sandbox.stack.embedded import alone
from tests.integration.outbox.consuming import SETTINGS, effects, note
from tests.integration.outbox.consuming import running as consuming
from tests.support.guarded_kafka import PASSWORD, USER, GuardedKafka
from tests.support.outbox_world import QUICK, append
from tests.support.outbox_world import running as relaying
from tests.support.waiting import until


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedKafka]:
    folders = Folders.of_checkout()
    instance = Instance.claim_any(folders, "guarded-kafka")
    with alone(GuardedKafka(folders, instance), instance) as server:
        yield server


def by_password(guarded: GuardedKafka) -> Brokers:
    return Brokers(guarded.login, guarded.tls(), "PLAIN", USER, PASSWORD)


def by_certificate(guarded: GuardedKafka) -> Brokers:
    return Brokers(guarded.certificate, guarded.tls(own=True))


@pytest.mark.parametrize("brokers_of", [by_password, by_certificate])
async def test_an_event_goes_all_the_way_and_back_again(
    engine: AsyncEngine,
    database_url: str,
    guarded: GuardedKafka,
    brokers_of: Callable[[GuardedKafka], Brokers],
) -> None:
    brokers = brokers_of(guarded)
    orders, dead = with_dead_letters(TopicSpec(f"orders-{brokers_of.__name__}", 2))
    topic = orders.name
    await ensure_topics(brokers, [orders, dead])
    await TopicsProbe(brokers, {topic: 2}).ask()
    await TopicSettingsProbe(brokers, [topic], timedelta(days=8)).ask()
    for name in (topic, dead.name):
        await initialise_group(brokers, name, [name])
    await append(engine, Message(topic, "k", b"paid"), Message(topic, "k", b"poison"))
    metrics = ConsumerMetrics(CollectorRegistry())
    runner = ConsumerRunner(
        engine, brokers, topic, [topic], note, Inbox(), metrics, settings=SETTINGS
    )
    reader = DeadLetterReader(engine, brokers, dead.name, [dead.name], metrics, settings=SETTINGS)

    async def open_ones() -> list[int]:
        async with engine.connect() as connection:
            return await find(connection, Which(state="open"))

    async def is_recorded() -> bool:
        return len(await open_ones()) == 1

    async with relaying(database_url, brokers), consuming(runner), consuming(reader):
        await until(is_recorded, what="a dead letter that is recorded")
        assert await effects(engine) == ["paid"]
        ids = await open_ones()
        assert await replay(engine, brokers, ids, ReplayOptions(by="test")) == {
            ids[0]: Fate.REPLAYED
        }


@pytest.mark.parametrize("wrong", [{"password": "other"}, {"tls": ssl.create_default_context()}])
async def test_a_wrong_password_and_a_stranger_s_certificate_let_nobody_in(
    engine: AsyncEngine, database_url: str, guarded: GuardedKafka, wrong: dict[str, Any]
) -> None:
    brokers = replace(by_password(guarded), **wrong)
    with pytest.raises(BrokerAwayError, match="at TLS and the login"):
        await ensure_topics(brokers, [TopicSpec("never", 1)], give_up_seconds=1)
    await append(engine, Message("never", "k", b"x"))
    async with relaying(database_url, brokers, replace(QUICK, publish_seconds=1.0)) as relay:
        await until(lambda: relay.value("relay_paused") == 1)
    assert "other" not in repr(relay.states)
