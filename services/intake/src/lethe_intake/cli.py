"""The group `lethe intake`, and intake's part of `lethe migrate`."""

import asyncio

import typer
from pydantic import SecretStr

from lethe_intake.api import SCOPES
from lethe_intake.consumer import GROUP, TOPICS
from lethe_intake.container import IntakeContainer
from lethe_intake.settings import IntakeSettings
from lethe_intake.storage import MIGRATIONS, VERSION_TABLE
from lethe_outbox import initialise_group
from lethe_runtime import database, lifecycle, logging, sentry
from lethe_runtime.api_keys import keys_app
from lethe_runtime.settings import load

app = typer.Typer(help="Accepts erasure requests over HTTP.", no_args_is_help=True)


@app.callback()
def intake() -> None:
    """Accept erasure requests over HTTP."""


@app.command()
def run() -> None:
    """Run the service until SIGTERM."""
    settings = load(IntakeSettings)
    logging.configure("intake", settings.log_level)
    sentry.configure("intake", settings.sentry_dsn)
    container = IntakeContainer(settings=settings)
    container.check_dependencies()
    code = lifecycle.run(
        "intake",
        {
            "http": container.server().run,
            "consumer": container.consumer().run,
            "inbox": container.inbox_keeper().run,
            "database": container.watch().run,
            "sample": container.sampler().run,
            "watermark": container.watermarks().run,
        },
        drain_seconds=settings.drain_seconds,
        resources=[database.disposing(container.engine()), container.wake_up()],
    )
    raise typer.Exit(code)


def _database_url() -> SecretStr:
    return load(IntakeSettings).database_url


app.add_typer(keys_app(_database_url, SCOPES), name="keys")


def migrate() -> str:
    """Bring intake's database to what this program needs, and its consumer group into being."""
    settings = load(IntakeSettings)
    # The database last: a service that waits for it then finds its group's offsets too.
    asyncio.run(initialise_group(settings.brokers, GROUP, TOPICS))
    reached = database.migrate(settings.database_url, MIGRATIONS, VERSION_TABLE)
    return f"at {reached}"
