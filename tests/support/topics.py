"""What an operator does to topics behind the product's back."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from lethe_outbox.topics import partition_counts
from tests.support.waiting import until


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def configure(bootstrap: str, name: str, config: Mapping[str, str]) -> None:
    """Give a topic these settings, and no others."""
    async with _admin(bootstrap) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, name, dict(config))
        for answer in await admin.alter_configs([resource]):
            assert [one[0] for one in answer.resources] == [0], answer


async def delete(bootstrap: str, name: str) -> None:
    """Delete a topic with its records, and wait until the broker has forgotten it."""
    async with _admin(bootstrap) as admin:
        await admin.delete_topics([name])

    async def gone() -> bool:
        return name not in await partition_counts(bootstrap, [name])

    await until(gone, what="a topic that is gone")
