"""A database with an outbox, and relay processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.relay.conftest import database_template, engine, laid
from tests.support.relays import Relays

__all__ = ["database_template", "engine", "laid"]


@pytest.fixture
def relays(database_url: str, kafka: str, tmp_path: Path) -> Iterator[Relays]:
    """Start relays as processes of their own; none is left at the end."""
    found = Relays(database_url, kafka, tmp_path / "relay.log")
    yield found
    found.end()
