"""The group `lethe reporting`, and reporting's part of `lethe migrate`."""

import asyncio

import typer
from pydantic import SecretStr

from lethe_contracts.topics import TOPICS
from lethe_outbox import Brokers, initialise_group
from lethe_reporting.api import SCOPES
from lethe_reporting.consumer import DEAD_LETTER_GROUP, GROUP
from lethe_reporting.container import ReportingContainer, connections, loops
from lethe_reporting.settings import ReportingSettings
from lethe_reporting.storage import MIGRATIONS, VERSION_TABLE
from lethe_reporting.storage.dead_letters import DEAD_LETTER_TOPICS
from lethe_runtime import database, lifecycle, logging, sentry
from lethe_runtime.api_keys import keys_app
from lethe_runtime.settings import load

app = typer.Typer(help="Answers where every erasure request stands.", no_args_is_help=True)


@app.callback()
def reporting() -> None:
    """Answer where every erasure request stands."""


@app.command()
def run() -> None:
    """Run the service until SIGTERM."""
    settings = load(ReportingSettings)
    logging.configure("reporting", settings.log_level)
    sentry.configure("reporting", settings.sentry_dsn)
    container = ReportingContainer(settings=settings)
    container.check_dependencies()
    code = lifecycle.run(
        "reporting",
        loops(container),
        drain_seconds=settings.drain_seconds,
        resources=[connections(container)],
    )
    raise typer.Exit(code)


def _database_url() -> SecretStr:
    return load(ReportingSettings).database_url


app.add_typer(keys_app(_database_url, SCOPES), name="keys")


def migrate() -> str:
    """Bring reporting's database to what this program needs, and its groups into being."""
    settings = load(ReportingSettings)
    asyncio.run(_initialise(settings.brokers))
    # The database last: a service that waits for it then finds its groups' offsets too.
    reached = database.migrate(settings.database_url, MIGRATIONS, VERSION_TABLE)
    return f"at {reached}"


async def _initialise(brokers: Brokers) -> None:
    await initialise_group(brokers, GROUP, TOPICS)
    await initialise_group(brokers, DEAD_LETTER_GROUP, DEAD_LETTER_TOPICS)
