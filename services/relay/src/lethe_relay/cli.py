"""The group `lethe relay`, and the relay's part of `lethe migrate`: the topics."""

import asyncio

import typer

from lethe_outbox import ensure_topics
from lethe_relay.container import RelayContainer
from lethe_relay.settings import RelaySettings
from lethe_relay.topics import specs
from lethe_runtime import lifecycle, logging, sentry
from lethe_runtime.settings import load

app = typer.Typer(help="Publishes the outboxes to Kafka.", no_args_is_help=True)


@app.callback()
def relay() -> None:
    """Publish the outboxes to Kafka."""


@app.command()
def run() -> None:
    """Run the service until SIGTERM."""
    settings = load(RelaySettings)
    logging.configure("relay", settings.log_level)
    sentry.configure("relay", settings.sentry_dsn)
    container = RelayContainer(settings=settings)
    container.check_dependencies()
    code = lifecycle.run(
        "relay",
        {
            "http": container.server().run,
            "intake": container.intake().run,
            "product": container.product().run,
            "topics": container.topics_watch().run,
        },
        drain_seconds=settings.drain_seconds,
    )
    raise typer.Exit(code)


def migrate() -> str:
    """Create the topics of the contract and their dead-letter topics, where they are missing."""
    settings = load(RelaySettings)
    wanted = specs(settings.kafka_replication_factor)
    created = asyncio.run(ensure_topics(settings.brokers, wanted))
    return f"{len(created)} topics created" if created else "topics are there"
