"""Which concrete things reporting is made of; the only module that knows the injector.

Every provider is synchronous and lazy; lifetimes are the program's (`cli.run`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

from dependency_injector import containers, providers
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.topics import PARTITIONS, TOPICS
from lethe_outbox import (
    ConsumerMetrics,
    ConsumerRunner,
    DeadLetterReader,
    Inbox,
    InboxKeeper,
    KeeperSettings,
    TopicSettingsProbe,
    TopicsProbe,
)
from lethe_outbox.redis_fast_path import RedisFastPath
from lethe_reporting.api import create_app
from lethe_reporting.consumer import DEAD_LETTER_GROUP, GROUP, Projector
from lethe_reporting.metrics import ReportingMetrics
from lethe_reporting.sample import Sampler
from lethe_reporting.settings import ReportingSettings
from lethe_reporting.storage import MIGRATIONS, VERSION_TABLE
from lethe_reporting.storage.dead_letters import DEAD_LETTER_TOPICS, DeadLetters
from lethe_reporting.storage.requests import Requests
from lethe_runtime.database import SCHEMA, DatabaseProbe, create_engine
from lethe_runtime.health import Readiness
from lethe_runtime.http import HttpServer
from lethe_runtime.lifecycle import Loop
from lethe_runtime.waiting import Gate, Gated, Watch

_AGREED = dict.fromkeys((*TOPICS, *DEAD_LETTER_TOPICS), PARTITIONS)
_REDIS_SECONDS = 2.0
_KAFKA_SECONDS = 10.0
"""Between two looks at the broker: a consumer with nothing to read does not notice it going."""


def _readiness(redis_url: SecretStr | None) -> Readiness:
    # Each group for itself: one whose offsets are lost stands still although the brokers answer.
    required = ["database", "kafka", GROUP, DEAD_LETTER_GROUP]
    return Readiness(required, optional=[] if redis_url is None else ["redis"])


def _redis(redis_url: SecretStr) -> Redis:
    return Redis.from_url(
        redis_url.get_secret_value(),
        socket_timeout=_REDIS_SECONDS,
        socket_connect_timeout=_REDIS_SECONDS,
    )


def _fast_path(redis_url: SecretStr | None, metrics: ConsumerMetrics) -> RedisFastPath | None:
    return None if redis_url is None else RedisFastPath(redis_url.get_secret_value(), metrics)


def _runner(
    settings: ReportingSettings,
    engine: AsyncEngine,
    projector: Projector,
    fast_path: RedisFastPath | None,
    readiness: Readiness,
    metrics: ConsumerMetrics,
) -> ConsumerRunner:
    return ConsumerRunner(
        engine=engine,
        bootstrap=settings.brokers,
        group=GROUP,
        topics=TOPICS,
        handler=projector.handle,
        inbox=Inbox(SCHEMA, fast_path=fast_path),
        metrics=metrics,
        on_state=partial(readiness.note, GROUP),
        after_commit=projector.committed,
    )


def _reader(
    settings: ReportingSettings,
    engine: AsyncEngine,
    readiness: Readiness,
    metrics: ConsumerMetrics,
) -> DeadLetterReader:
    return DeadLetterReader(
        engine=engine,
        bootstrap=settings.brokers,
        group=DEAD_LETTER_GROUP,
        topics=DEAD_LETTER_TOPICS,
        schema=SCHEMA,
        metrics=metrics,
        on_state=partial(readiness.note, DEAD_LETTER_GROUP),
    )


def _keeper(
    settings: ReportingSettings, engine: AsyncEngine, metrics: ConsumerMetrics
) -> InboxKeeper:
    keep = timedelta(days=settings.inbox_keep_days)
    return InboxKeeper(engine, GROUP, metrics, schema=SCHEMA, settings=KeeperSettings(keep=keep))


class ReportingContainer(containers.DeclarativeContainer):
    """Reporting, put together."""

    settings = providers.Dependency(instance_of=ReportingSettings)

    registry = providers.Singleton(CollectorRegistry)
    readiness = providers.Singleton(_readiness, settings.provided.redis_url)
    metrics = providers.Singleton(ReportingMetrics, registry)
    consumer_metrics = providers.Singleton(ConsumerMetrics, registry)
    engine = providers.Singleton(
        create_engine,
        settings.provided.database_url,
        application_name="lethe-reporting",
        pool_size=10,
    )
    probe = providers.Singleton(DatabaseProbe, engine, MIGRATIONS, VERSION_TABLE)
    requests = providers.Singleton(Requests, engine)
    letters = providers.Singleton(DeadLetters, engine)
    app = providers.Singleton(
        create_app,
        requests_kept=requests,
        letters=letters,
        engine=engine,
        probe=probe,
        readiness=readiness,
        registry=registry,
    )
    server = providers.Singleton(
        HttpServer,
        app,
        settings.provided.http_host,
        settings.provided.http_port,
        drain_seconds=settings.provided.drain_seconds,
    )
    topics_probe = providers.Singleton(TopicsProbe, settings.provided.brokers, _AGREED)
    topic_settings_probe = providers.Singleton(
        TopicSettingsProbe,
        settings.provided.brokers,
        TOPICS,
        providers.Factory(timedelta, days=settings.provided.inbox_keep_days),
    )
    gates = providers.List(
        providers.Factory(Gate, "database", probe.provided.ask, DatabaseProbe.TRANSIENT),
        providers.Factory(Gate, "kafka", topics_probe.provided.ask, TopicsProbe.TRANSIENT),
        providers.Factory(
            Gate, "kafka", topic_settings_probe.provided.ask, TopicSettingsProbe.TRANSIENT
        ),
    )
    projector = providers.Singleton(Projector, metrics)
    fast_path = providers.Singleton(_fast_path, settings.provided.redis_url, consumer_metrics)
    runner = providers.Singleton(
        _runner, settings, engine, projector, fast_path, readiness, consumer_metrics
    )
    consumer = providers.Singleton(Gated, runner.provided.run, gates, readiness)
    reader = providers.Singleton(_reader, settings, engine, readiness, consumer_metrics)
    dead_letter_consumer = providers.Singleton(Gated, reader.provided.run, gates, readiness)
    keeper = providers.Singleton(_keeper, settings, engine, consumer_metrics)
    inbox_keeper = providers.Singleton(Gated, keeper.provided.run, gates, readiness)
    database_watch = providers.Singleton(
        Watch,
        "database",
        probe.provided.ask,
        readiness=readiness,
        transient=DatabaseProbe.TRANSIENT,
    )
    kafka_watch = providers.Singleton(
        Watch,
        "kafka",
        topics_probe.provided.ask,
        readiness=readiness,
        transient=TopicsProbe.TRANSIENT,
        interval=_KAFKA_SECONDS,
    )
    redis = providers.Singleton(_redis, settings.provided.redis_url)
    redis_watch = providers.Singleton(
        Watch,
        "redis",
        redis.provided.ping,
        readiness=readiness,
        transient=(RedisError, OSError, TimeoutError),
    )
    sampler = providers.Singleton(Sampler, requests, letters, metrics, probe)


def loops(container: ReportingContainer) -> dict[str, Loop]:
    """Name everything that runs by itself."""
    found: dict[str, Loop] = {
        "http": container.server().run,
        "consumer": container.consumer().run,
        "dead-letters": container.dead_letter_consumer().run,
        "inbox": container.inbox_keeper().run,
        "database": container.database_watch().run,
        "kafka": container.kafka_watch().run,
        "sample": container.sampler().run,
    }
    if container.settings().redis_url is not None:
        found["redis"] = container.redis_watch().run
    return found


@asynccontextmanager
async def connections(container: ReportingContainer) -> AsyncIterator[None]:
    """Let go of every server at the end."""
    try:
        yield
    finally:
        await container.engine().dispose()
        if container.settings().redis_url is not None:
            await container.redis().aclose()
        fast_path = container.fast_path()
        if fast_path is not None:
            await fast_path.close()
