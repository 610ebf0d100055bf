"""The same world as the integration tests'."""

from tests.integration.eraser.conftest import database_template, world

__all__ = ["database_template", "world"]
