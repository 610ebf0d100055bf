import asyncio
from typing import Any

import pytest
from dependency_injector import errors
from pydantic import SecretStr

from lethe_contracts.keyring import KeyRing
from lethe_intake.container import IntakeContainer
from lethe_intake.settings import IntakeSettings

RING = SecretStr(KeyRing({1: b"1" * 32}).render())


@pytest.fixture
def container() -> IntakeContainer:
    settings = IntakeSettings(
        database_url=SecretStr("postgresql+psycopg://127.0.0.1/intake"),
        kafka_bootstrap="127.0.0.1:1",
        redis_url=SecretStr("redis://127.0.0.1:1"),
        subject_ref_keys=RING,
        subject_cipher_keys=RING,
    )
    return IntakeContainer(settings=settings)


async def test_every_part_can_be_built_without_any_server(container: IntakeContainer) -> None:
    built: dict[str, Any] = {name: provider() for name, provider in container.providers.items()}

    assert set(built) >= {"server", "consumer", "watch", "sampler", "app", "storage"}
    for name in ("server", "consumer", "watch", "sampler"):
        assert asyncio.iscoroutinefunction(built[name].run)
    await built["engine"].dispose()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(errors.Error, match="settings"):
        IntakeContainer().check_dependencies()
