"""The same world as the integration tests'."""

from tests.integration.eraser.conftest import world

__all__ = ["world"]
