"""What `/readyz` of the relay says of an outbox's database that lets nobody in."""

import asyncio
from typing import Never

import psycopg
import pytest

import lethe_outbox.relay.relay as library
from lethe_relay.container import RelayContainer
from lethe_relay.settings import RelaySettings


async def test_why_a_database_is_away_stands_in_the_readiness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = RelaySettings(
        intake_database_url="postgresql+psycopg://who:s3cret@localhost:1/intake",
        product_database_url="postgresql+psycopg://who:s3cret@localhost:1/product",
        kafka_bootstrap="localhost:1",
    )
    container = RelayContainer(settings=settings)
    stop = asyncio.Event()

    class Refused:
        def __init__(self, *_: object) -> None:
            stop.set()

        async def __aenter__(self) -> Never:
            raise psycopg.OperationalError('FATAL:  database "intake" does not exist')

        async def __aexit__(self, *_: object) -> None:
            raise AssertionError("nobody came in")

    monkeypatch.setattr(library, "Session", Refused)
    await container.intake().run(stop)
    told = container.readiness().report().dependencies["database-intake"]
    assert (told.status, told.error_class) == ("away", "OperationalError 3D000")
