"""What is asked before a request leaves for a broker."""

from types import SimpleNamespace
from typing import Any

from aiokafka.structs import TopicPartition

from lethe_outbox.relay.producer import Producer
from lethe_outbox.relay.settings import RelaySettings

PLACE = TopicPartition("t", 0)


async def test_the_lease_is_asked_for_once_the_broker_is_connected() -> None:
    """A process may be frozen while it connects; what leaves after that is late."""
    sent: list[Any] = []
    ended: list[Exception] = []
    lease = [True]

    async def send(*request: Any) -> None:
        sent.append(request)

    async def connected(node: int) -> bool:
        del node
        lease.clear()
        return True

    sender: Any = SimpleNamespace(_send_produce_req=send, _muted_partitions={PLACE}, _in_flight={1})
    kafka: Any = SimpleNamespace(_sender=sender, client=SimpleNamespace(ready=connected))
    producer = Producer(kafka, RelaySettings())
    builder: Any = type("Builder", (), {})()
    producer._may_leave[builder] = lambda: bool(lease)
    batch = SimpleNamespace(_builder=builder, failure=ended.append)
    await sender._send_produce_req(1, {PLACE: batch})
    assert (sent, len(ended)) == ([], 1)
    assert not sender._muted_partitions
    assert not sender._in_flight
