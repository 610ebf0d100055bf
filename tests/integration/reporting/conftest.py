"""The fixtures of reporting's tests."""

from tests.integration.reporting.fixtures import (
    api,
    log,
    migrated,
    reporting_url,
    service,
    service_environment,
)

__all__ = ["api", "log", "migrated", "reporting_url", "service", "service_environment"]
