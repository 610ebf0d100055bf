"""An outbox in memory, for the unit tests of those who append and consume; no I/O.

    outbox, broker = MemoryOutbox(), MemoryBroker("orders.v1")
    with MemoryTransaction() as transaction:
        place_order(transaction, outbox)
    MemoryRelay(outbox, broker).publish()
    assert [record.key for record in broker.records("orders.v1")] == [b"customer-7"]

It behaves as the real one does, which one suite of tests says of both.
"""

from lethe_outbox.testing.broker import MemoryBroker, MemoryRecord
from lethe_outbox.testing.consumer import MemoryConsumer, MemoryInbox
from lethe_outbox.testing.outbox import MemoryOutbox, MemoryRow
from lethe_outbox.testing.relay import MemoryRelay
from lethe_outbox.testing.transactions import MemoryEngine, MemoryTransaction

__all__ = [
    "MemoryBroker",
    "MemoryConsumer",
    "MemoryEngine",
    "MemoryInbox",
    "MemoryOutbox",
    "MemoryRecord",
    "MemoryRelay",
    "MemoryRow",
    "MemoryTransaction",
]
