"""Which concrete things reporting is made of; the only module that knows the injector.

Every provider is synchronous and lazy; lifetimes are the program's (`cli.run`).
"""

from collections.abc import Callable

from dependency_injector import containers, providers
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.topics import TOPICS
from lethe_outbox import ConsumerMetrics, ConsumerRunner, DeadLetterReader, Inbox
from lethe_outbox.redis_fast_path import RedisFastPath
from lethe_reporting.api import create_app
from lethe_reporting.consumer import (
    DEAD_LETTER_GROUP,
    GROUP,
    AgreedTopics,
    Consumer,
    Projector,
)
from lethe_reporting.metrics import ReportingMetrics
from lethe_reporting.sample import Sampler
from lethe_reporting.settings import ReportingSettings
from lethe_reporting.storage import MIGRATIONS, VERSION_TABLE
from lethe_reporting.storage.dead_letters import DEAD_LETTER_TOPICS, DeadLetters
from lethe_reporting.storage.requests import Requests
from lethe_runtime.database import SCHEMA, DatabaseProbe, create_engine
from lethe_runtime.health import Readiness
from lethe_runtime.http import HttpServer
from lethe_runtime.waiting import Watch

_REDIS_SECONDS = 2.0


def _readiness(redis_url: SecretStr | None) -> Readiness:
    return Readiness(["database", "kafka"], optional=[] if redis_url is None else ["redis"])


def _on_kafka(readiness: Readiness) -> Callable[[str, str], None]:
    def on_state(state: str, error_class: str) -> None:
        if state == "ok":
            readiness.ok("kafka")
        else:
            readiness.away("kafka", error_class)

    return on_state


def _redis(redis_url: SecretStr) -> Redis:
    return Redis.from_url(
        redis_url.get_secret_value(),
        socket_timeout=_REDIS_SECONDS,
        socket_connect_timeout=_REDIS_SECONDS,
    )


def _inbox(redis_url: SecretStr | None, metrics: ConsumerMetrics) -> Inbox:
    if redis_url is None:
        return Inbox(SCHEMA)
    return Inbox(SCHEMA, fast_path=RedisFastPath(redis_url.get_secret_value(), metrics))


def _runner(
    settings: ReportingSettings,
    engine: AsyncEngine,
    projector: Projector,
    readiness: Readiness,
    metrics: ConsumerMetrics,
) -> ConsumerRunner:
    return ConsumerRunner(
        engine=engine,
        bootstrap=settings.kafka_bootstrap,
        group=GROUP,
        topics=TOPICS,
        handler=projector.handle,
        inbox=_inbox(settings.redis_url, metrics),
        metrics=metrics,
        on_state=_on_kafka(readiness),
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
        bootstrap=settings.kafka_bootstrap,
        group=DEAD_LETTER_GROUP,
        topics=DEAD_LETTER_TOPICS,
        schema=SCHEMA,
        metrics=metrics,
        on_state=_on_kafka(readiness),
    )


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
    agreed_topics = providers.Singleton(AgreedTopics, settings.provided.kafka_bootstrap)
    projector = providers.Singleton(Projector, metrics)
    runner = providers.Singleton(_runner, settings, engine, projector, readiness, consumer_metrics)
    consumer = providers.Singleton(
        Consumer, runner.provided.run, agreed_topics.provided.check, probe, readiness
    )
    reader = providers.Singleton(_reader, settings, engine, readiness, consumer_metrics)
    dead_letter_consumer = providers.Singleton(
        Consumer, reader.provided.run, agreed_topics.provided.check, probe, readiness
    )
    database_watch = providers.Singleton(
        Watch,
        "database",
        probe.provided.ask,
        readiness=readiness,
        transient=DatabaseProbe.TRANSIENT,
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
