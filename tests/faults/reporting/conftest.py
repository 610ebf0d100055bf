"""The fixtures of reporting's tests; here a service is also a process that can be killed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.reporting.fixtures import (
    log,
    migrated,
    reporting_url,
    service,
    service_environment,
)
from tests.integration.reporting.process import Processes

__all__ = ["log", "migrated", "processes", "reporting_url", "service", "service_environment"]


@pytest.fixture
async def processes(
    service_environment: dict[str, str], kafka: str, tmp_path: Path
) -> AsyncIterator[Processes]:
    """Starts `lethe reporting run` as often as a test wants; all are gone at its end."""
    async with Processes(service_environment, kafka, tmp_path) as started:
        yield started
