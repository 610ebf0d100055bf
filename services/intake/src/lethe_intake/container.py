"""Which concrete things intake is made of; the only module that knows the injector.

Every provider is synchronous and lazy; lifetimes are the program's (`cli.run`).
"""

from datetime import timedelta
from functools import partial
from zoneinfo import ZoneInfo

from dependency_injector import containers, providers
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.cipher import Cipher
from lethe_contracts.keyring import KeyRing
from lethe_contracts.subject import SubjectRefs
from lethe_contracts.topics import PARTITIONS
from lethe_intake.api import create_app
from lethe_intake.consumer import GROUP, TOPICS, handle
from lethe_intake.domain import Seal
from lethe_intake.metrics import IntakeMetrics
from lethe_intake.sample import Sampler
from lethe_intake.settings import IntakeSettings
from lethe_intake.storage import MIGRATIONS, VERSION_TABLE, IntakeStorage
from lethe_intake.watermark import Watermarks
from lethe_outbox import (
    ConsumerMetrics,
    ConsumerRunner,
    Inbox,
    InboxKeeper,
    KeeperSettings,
    Outbox,
    TopicSettingsProbe,
    TopicsProbe,
    WakeUp,
)
from lethe_outbox.redis_fast_path import RedisFastPath
from lethe_runtime.database import SCHEMA, DatabaseProbe, create_engine
from lethe_runtime.health import Readiness
from lethe_runtime.http import HttpServer
from lethe_runtime.waiting import Gate, Gated, Watch

_AGREED = dict.fromkeys(TOPICS, PARTITIONS)


def _ring(text: SecretStr) -> KeyRing:
    return KeyRing.parse(text.get_secret_value())


def _inbox(redis_url: SecretStr | None, metrics: ConsumerMetrics) -> Inbox:
    if redis_url is None:
        return Inbox(SCHEMA)
    return Inbox(SCHEMA, fast_path=RedisFastPath(redis_url.get_secret_value(), metrics))


def _runner(
    settings: IntakeSettings,
    engine: AsyncEngine,
    readiness: Readiness,
    metrics: ConsumerMetrics,
) -> ConsumerRunner:
    return ConsumerRunner(
        engine=engine,
        bootstrap=settings.brokers,
        group=GROUP,
        topics=TOPICS,
        handler=handle,
        inbox=_inbox(settings.redis_url, metrics),
        metrics=metrics,
        on_state=partial(readiness.note, "kafka"),
    )


def _keeper(settings: IntakeSettings, engine: AsyncEngine, metrics: ConsumerMetrics) -> InboxKeeper:
    keep = timedelta(days=settings.inbox_keep_days)
    return InboxKeeper(engine, GROUP, metrics, schema=SCHEMA, settings=KeeperSettings(keep=keep))


class IntakeContainer(containers.DeclarativeContainer):
    """Intake, put together."""

    settings = providers.Dependency(instance_of=IntakeSettings)

    registry = providers.Singleton(CollectorRegistry)
    readiness = providers.Singleton(Readiness, ["database"], optional=["kafka"])
    metrics = providers.Singleton(IntakeMetrics, registry)
    engine = providers.Singleton(
        create_engine, settings.provided.database_url, application_name="lethe-intake", pool_size=10
    )
    wake_up = providers.Singleton(WakeUp, engine, SCHEMA)
    probe = providers.Singleton(DatabaseProbe, engine, MIGRATIONS, VERSION_TABLE)
    seal = providers.Singleton(
        Seal,
        providers.Singleton(
            SubjectRefs,
            providers.Singleton(_ring, settings.provided.subject_ref_keys),
            settings.provided.subject_ref_current,
        ),
        providers.Singleton(
            Cipher, providers.Singleton(_ring, settings.provided.subject_cipher_keys)
        ),
    )
    storage = providers.Singleton(
        IntakeStorage,
        engine,
        providers.Singleton(Outbox, SCHEMA),
        providers.Singleton(ZoneInfo, settings.provided.subject_zone),
    )
    app = providers.Singleton(
        create_app,
        storage=storage,
        engine=engine,
        seal=seal,
        metrics=metrics,
        probe=probe,
        readiness=readiness,
        registry=registry,
        body_limit_bytes=settings.provided.body_limit_bytes,
    )
    server = providers.Singleton(
        HttpServer,
        app,
        settings.provided.http_host,
        settings.provided.http_port,
        drain_seconds=settings.provided.drain_seconds,
    )
    consumer_metrics = providers.Singleton(ConsumerMetrics, registry)
    runner = providers.Singleton(_runner, settings, engine, readiness, consumer_metrics)
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
    consumer = providers.Singleton(Gated, runner.provided.run, gates, readiness)
    keeper = providers.Singleton(_keeper, settings, engine, consumer_metrics)
    inbox_keeper = providers.Singleton(Gated, keeper.provided.run, gates, readiness)
    watch = providers.Singleton(
        Watch,
        "database",
        probe.provided.ask,
        readiness=readiness,
        transient=DatabaseProbe.TRANSIENT,
    )
    sampler = providers.Singleton(Sampler, storage, metrics, probe)
    watermarks = providers.Singleton(
        Watermarks, storage, metrics, probe, settings.provided.watermark_seconds
    )
