"""Telling an offset that is not there from a coordinator that did not say."""

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import for_code
from aiokafka.protocol.commit import OffsetFetchRequest


def hearing_refusals(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """Make `consumer`, not started yet, ask again where its coordinator refused it its offsets.

    While a coordinator loads or moves, its answer (OffsetFetch, from version 2 on) is an error
    beside an empty list. aiokafka 0.14 reads the list alone (GroupCoordinator,
    _do_fetch_commit_offsets), and every offset of the group would count as lost.
    """
    client = consumer._client  # noqa: SLF001 - no public door leads to it
    send = client.send

    async def heard(node: Any, request: Any, **how: Any) -> Any:
        answer = await send(node, request, **how)
        if isinstance(request, OffsetFetchRequest) and getattr(answer, "error_code", None):
            raise for_code(answer.error_code)
        return answer

    client.send = heard
    return consumer
