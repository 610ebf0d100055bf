"""Which concrete things the relay is made of; the only module that knows the injector.

Every provider is synchronous and lazy; lifetimes are the program's (`cli.run`).
"""

from typing import Final

from dependency_injector import containers, providers
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from lethe_contracts.topics import REQUESTS
from lethe_outbox import Relay, RelayMetrics, TopicsProbe
from lethe_outbox import RelaySettings as LibrarySettings
from lethe_relay.settings import RelaySettings
from lethe_relay.topics import AGREED
from lethe_runtime.database import SCHEMA
from lethe_runtime.database_away import reason_of
from lethe_runtime.health import Readiness
from lethe_runtime.http import HttpServer, ops_app
from lethe_runtime.waiting import Watch

_LOOK_SECONDS: Final = 10.0
"""Between two looks at the broker: a relay with nothing to publish does not notice it going."""


def _database(outbox: str) -> str:
    return f"database-{outbox}"


def _relay(
    outbox: str,
    url: SecretStr,
    settings: RelaySettings,
    metrics: RelayMetrics,
    readiness: Readiness,
) -> Relay:
    def on_state(dependency: str, state: str, error_class: str) -> None:
        name = _database(outbox) if dependency == "database" else dependency
        if state == "ok":
            readiness.ok(name)
        else:
            readiness.away(name, error_class)

    return Relay(
        outbox,
        url.get_secret_value(),
        settings.brokers,
        metrics=metrics,
        schema=SCHEMA,
        settings=LibrarySettings(
            hold_back_topics=frozenset({REQUESTS}),
            listen=settings.listen,
            retention_seconds=settings.sent_retention_days * 86_400,
            janitor_seconds=settings.janitor_seconds,
            months_ahead=settings.months_ahead,
        ),
        on_state=on_state,
        name_error=reason_of,
    )


class RelayContainer(containers.DeclarativeContainer):
    """The relay, put together."""

    settings = providers.Dependency(instance_of=RelaySettings)

    registry = providers.Singleton(CollectorRegistry)
    readiness = providers.Singleton(Readiness, ["kafka", _database("intake"), _database("product")])
    metrics = providers.Singleton(RelayMetrics, registry)
    intake = providers.Singleton(
        _relay, "intake", settings.provided.intake_database_url, settings, metrics, readiness
    )
    product = providers.Singleton(
        _relay, "product", settings.provided.product_database_url, settings, metrics, readiness
    )
    topics_probe = providers.Singleton(TopicsProbe, settings.provided.brokers, AGREED)
    topics_watch = providers.Singleton(
        Watch,
        "kafka",
        topics_probe.provided.ask,
        readiness=readiness,
        transient=TopicsProbe.TRANSIENT,
        interval=_LOOK_SECONDS,
    )
    app = providers.Singleton(ops_app, "relay", readiness, registry)
    server = providers.Singleton(
        HttpServer,
        app,
        settings.provided.http_host,
        settings.provided.http_port,
        drain_seconds=settings.provided.drain_seconds,
    )
