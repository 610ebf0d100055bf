"""The application: routes behind API keys, problems, operations."""

from importlib.metadata import version
from typing import Final

from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_reporting.api import dead_letters, requests
from lethe_reporting.storage.dead_letters import DeadLetters
from lethe_reporting.storage.requests import Requests
from lethe_runtime import problems
from lethe_runtime.api_keys import require
from lethe_runtime.database import TRANSIENT, DatabaseProbe
from lethe_runtime.health import Readiness
from lethe_runtime.http import migrated, ops_router

READ: Final = "reporting:read"
SCOPES: Final = (READ,)


def create_app(
    *,
    requests_kept: Requests,
    letters: DeadLetters,
    engine: AsyncEngine,
    probe: DatabaseProbe,
    readiness: Readiness,
    registry: CollectorRegistry,
) -> FastAPI:
    """Make the application.

    Args:
        requests_kept: the requests of the read model.
        letters: the dead letters.
        engine: the database, for API keys.
        probe: knows whether the tables are there yet.
        readiness: what `/readyz` tells.
        registry: what `/metrics` tells.
    """
    app = FastAPI(
        title="Lethe reporting",
        version=version("lethe-reporting"),
        summary="Where every erasure request stands, and what nobody could handle.",
        description="A projection of the events: it follows them within moments. Errors are "
        "problem details (RFC 9457).",
        redoc_url=None,
    )
    problems.install(app, unavailable=TRANSIENT)
    guards = [Depends(migrated(probe)), Depends(require(engine, READ))]
    app.include_router(requests.routes(requests_kept), dependencies=guards)
    app.include_router(dead_letters.routes(letters), dependencies=guards)
    app.include_router(ops_router(readiness, registry))
    return app
