"""Which concrete things the eraser is made of; the only module that knows the injector.

Every provider is synchronous and lazy; lifetimes are the program's (`cli.run`).
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from dependency_injector import containers, providers
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.cipher import Cipher
from lethe_contracts.subject import SubjectRefs
from lethe_contracts.topics import PARTITIONS
from lethe_eraser import handlers
from lethe_eraser.catalog import Catalog
from lethe_eraser.catalog import load as load_catalog
from lethe_eraser.consumer import GROUP, TOPICS, Acceptance
from lethe_eraser.domain import ObjectRef
from lethe_eraser.execute.batch import Batches
from lethe_eraser.execute.forecasting import Forecaster
from lethe_eraser.execute.preflight import CHECKED, CheckedExecutor, Preflight
from lethe_eraser.execute.preview import Previewer
from lethe_eraser.execute.references import References
from lethe_eraser.execute.rounds import Rounds
from lethe_eraser.execute.stopwatch import Stopwatch
from lethe_eraser.execute.worker import Assignment, Executor, utc_now
from lethe_eraser.fence import Fence
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.objects import (
    PROBE_KEY,
    Cdn,
    CdnOptions,
    ObjectStore,
    ObjectStoreUnavailableError,
    S3Options,
)
from lethe_eraser.pace import RowBudget
from lethe_eraser.sample import Sampler
from lethe_eraser.settings import EraserSettings
from lethe_eraser.storage.accounts import Accounts
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.invalidations import Invalidations
from lethe_eraser.storage.journal import Journal
from lethe_eraser.storage.tables import MIGRATIONS, SCHEMA, VERSION_TABLE
from lethe_eraser.verify import Invalidator, Verification
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
from lethe_runtime.database import DatabaseProbe, create_engine
from lethe_runtime.health import Readiness
from lethe_runtime.http import HttpServer, ops_app
from lethe_runtime.waiting import Gate, Gated, Watch

_AGREED = dict.fromkeys(TOPICS, PARTITIONS)


def _inbox(redis_url: SecretStr | None, metrics: ConsumerMetrics) -> Inbox:
    if redis_url is None:
        return Inbox(SCHEMA)
    return Inbox(SCHEMA, fast_path=RedisFastPath(redis_url.get_secret_value(), metrics))


def _refs(settings: EraserSettings) -> SubjectRefs | None:
    ring = settings.ref_key_ring
    return None if ring is None else SubjectRefs(ring)


def _s3_options(settings: EraserSettings) -> S3Options:
    return S3Options(
        region=settings.s3_region,
        endpoint_url=settings.s3_endpoint_url,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key,
        threads=settings.s3_threads,
        page_keys=settings.s3_page_keys,
        prefix_keys_per_second=settings.s3_prefix_keys_per_second,
    )


def _objects(settings: EraserSettings, catalog: Catalog, metrics: EraserMetrics) -> ObjectStore:
    return ObjectStore(
        _s3_options(settings),
        catalog.buckets,
        on_error=metrics.s3_error,
        on_breaker=metrics.circuit,
        on_throttled=metrics.throttled,
    )


def _cdn(settings: EraserSettings, metrics: EraserMetrics) -> Cdn:
    options = CdnOptions(
        endpoint_url=settings.cdn_endpoint_url,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key,
    )
    return Cdn(options, on_error=metrics.cdn_error, on_breaker=metrics.circuit)


def _s3_probe(objects: ObjectStore, catalog: Catalog) -> Callable[[], Awaitable[object]]:
    refs = [ObjectRef(bucket, PROBE_KEY) for bucket in sorted(catalog.buckets)]

    async def ask() -> None:
        # What S3 will not tell counts as there, so a bucket that refuses us shows, too.
        if await objects.remaining(refs):
            raise ObjectStoreUnavailableError("Refused")

    return ask


def _runner(
    settings: EraserSettings,
    engine: AsyncEngine,
    readiness: Readiness,
    metrics: ConsumerMetrics,
    acceptance: Acceptance,
    assignment: Assignment,
) -> ConsumerRunner:
    def on_state(state: str, error_class: str) -> None:
        if state == "ok":
            readiness.ok("kafka")
        else:
            readiness.away("kafka", error_class)

    async def after_commit(records: object) -> None:
        del records
        assignment.changed.set()

    return ConsumerRunner(
        engine=engine,
        bootstrap=settings.brokers,
        group=GROUP,
        topics=TOPICS,
        handler=acceptance.handle,
        inbox=_inbox(settings.redis_url, metrics),
        metrics=metrics,
        on_assigned=assignment.assign,
        on_dead_letter=acceptance.set_aside,
        after_commit=after_commit,
        on_state=on_state,
    )


def _keeper(settings: EraserSettings, engine: AsyncEngine, metrics: ConsumerMetrics) -> InboxKeeper:
    keep = timedelta(days=settings.inbox_keep_days)
    return InboxKeeper(engine, GROUP, metrics, schema=SCHEMA, settings=KeeperSettings(keep=keep))


class EraserContainer(containers.DeclarativeContainer):
    """The eraser, put together."""

    settings = providers.Dependency(instance_of=EraserSettings)

    registry = providers.Singleton(CollectorRegistry)
    readiness = providers.Singleton(Readiness, ["database", "kafka", "s3", CHECKED])
    metrics = providers.Singleton(EraserMetrics, registry)
    clock = providers.Object(utc_now)
    catalog = providers.Singleton(load_catalog, settings.provided.catalog)
    engine = providers.Singleton(
        create_engine, settings.provided.database_url, application_name="lethe-eraser", pool_size=10
    )
    wake_up = providers.Singleton(WakeUp, engine, SCHEMA)
    probe = providers.Singleton(DatabaseProbe, engine, MIGRATIONS, VERSION_TABLE)
    cipher = providers.Singleton(Cipher, settings.provided.key_ring)
    window = settings.provided.erasing_window
    objects = providers.Singleton(_objects, settings, catalog, metrics)
    cdn = providers.Singleton(_cdn, settings, metrics)
    handlers = providers.Singleton(handlers.build, catalog, objects)
    announcer = providers.Singleton(Announcer, providers.Singleton(Outbox, SCHEMA))
    accounts = providers.Singleton(Accounts.of, catalog.provided.active_account, cipher)
    fence = providers.Singleton(
        Fence,
        announcer,
        settings.provided.control_fresh,
        accounts,
    )
    journal = providers.Singleton(Journal, cipher)
    assignment = providers.Singleton(Assignment)
    budget = providers.Singleton(
        RowBudget, settings.provided.rows_per_second, on_waited=metrics.provided.waited
    )
    batches = providers.Singleton(
        Batches,
        engine=engine,
        sources=catalog.provided.client_tables,
        handlers=handlers,
        objects=objects,
        journal=journal,
        announcer=announcer,
        fence=fence,
        metrics=metrics,
        batch_rows=settings.provided.batch_rows,
        references=providers.Singleton(References, catalog.provided.look_ups),
        budget=budget,
    )
    invalidator = providers.Singleton(
        Invalidator,
        engine=engine,
        catalog=catalog,
        cdn=cdn,
        journal=journal,
        invalidations=providers.Singleton(Invalidations, cipher),
        fence=fence,
    )
    verification = providers.Singleton(
        Verification,
        invalidator=invalidator,
        engine=engine,
        catalog=catalog,
        objects=objects,
        handlers=handlers,
        journal=journal,
        announcer=announcer,
        fence=fence,
        metrics=metrics,
        budget=budget,
    )
    rounds = providers.Singleton(
        Rounds,
        engine=engine,
        sources=catalog.provided.client_tables,
        cipher=cipher,
        batches=batches,
        verification=verification,
        journal=journal,
        announcer=announcer,
        fence=fence,
    )
    stopwatch = providers.Singleton(Stopwatch)
    preflight = providers.Singleton(Preflight, engine=engine, catalog=catalog, metrics=metrics)
    executor = providers.Singleton(
        Executor,
        engine=engine,
        rounds=rounds,
        announcer=announcer,
        assignment=assignment,
        window=window,
        readiness=readiness,
        concurrency=settings.provided.concurrency,
        control_fresh=settings.provided.control_fresh,
        clock=clock,
        may_begin=preflight.provided.may_begin,
        stopwatch=stopwatch,
    )
    forecaster = providers.Singleton(
        Forecaster,
        engine=engine,
        sources=catalog.provided.client_tables,
        cipher=cipher,
        stopwatch=stopwatch,
        assignment=assignment,
        metrics=metrics,
        window=window,
        workers=settings.provided.concurrency,
        batch_rows=settings.provided.batch_rows,
        clock=clock,
    )
    checked_executor = providers.Singleton(
        CheckedExecutor,
        executor=executor,
        preflight=preflight,
        buckets=objects,
        probe=probe,
        readiness=readiness,
    )
    acceptance = providers.Singleton(Acceptance, cipher, announcer, window, clock)
    consumer_metrics = providers.Singleton(ConsumerMetrics, registry)
    runner = providers.Singleton(
        _runner,
        settings,
        engine,
        readiness,
        consumer_metrics,
        acceptance,
        assignment,
    )
    topics_probe = providers.Singleton(TopicsProbe, settings.provided.brokers, _AGREED)
    topic_settings_probe = providers.Singleton(
        TopicSettingsProbe,
        settings.provided.brokers,
        TOPICS,
        providers.Factory(timedelta, days=settings.provided.inbox_keep_days),
    )
    gates = providers.List(
        providers.Factory(Gate, "kafka", topics_probe.provided.ask, TopicsProbe.TRANSIENT),
        providers.Factory(
            Gate, "kafka", topic_settings_probe.provided.ask, TopicSettingsProbe.TRANSIENT
        ),
        providers.Factory(Gate, "database", probe.provided.ask, DatabaseProbe.TRANSIENT),
    )
    consumer = providers.Singleton(Gated, runner.provided.run, gates, readiness)
    keeper = providers.Singleton(_keeper, settings, engine, consumer_metrics)
    inbox_keeper = providers.Singleton(Gated, keeper.provided.run, gates, readiness)
    previewer = providers.Singleton(
        Previewer,
        engine=engine,
        catalog=catalog,
        handlers=handlers,
        refs=providers.Singleton(_refs, settings),
        accounts=accounts,
        batch_rows=settings.provided.batch_rows,
    )
    sampler = providers.Singleton(
        Sampler,
        engine=engine,
        metrics=metrics,
        window=window,
        control_fresh=settings.provided.control_fresh,
        clock=clock,
        probe=probe,
        forecast=forecaster.provided.sample,
    )
    server = providers.Singleton(
        HttpServer,
        providers.Singleton(ops_app, "eraser", readiness, registry),
        settings.provided.http_host,
        settings.provided.http_port,
        drain_seconds=settings.provided.drain_seconds,
    )
    database_watch = providers.Singleton(
        Watch,
        "database",
        probe.provided.ask,
        readiness=readiness,
        transient=DatabaseProbe.TRANSIENT,
    )
    s3_watch = providers.Singleton(
        Watch,
        "s3",
        providers.Singleton(_s3_probe, objects, catalog),
        readiness=readiness,
        transient=(ObjectStoreUnavailableError,),
    )
