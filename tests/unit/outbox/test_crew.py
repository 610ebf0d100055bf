"""What a relay keeps of the lanes it has."""

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.crew import Crew
from lethe_outbox.relay.lane import Lease
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.publish import Outlet
from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.settings import RelaySettings

ANYTHING: Any = None


async def test_nothing_is_kept_of_a_lane_that_was_lost() -> None:
    """Leases come and go for months in one process."""
    settings, metrics = RelaySettings(), RelayMetrics(CollectorRegistry())
    producers = Producers(
        "nowhere:1", settings, idempotent=True, reach=Reach(settings, lambda *_: None)
    )
    room = asyncio.Event()
    acknowledger = Acknowledger("tested", metrics, 100, room)
    outlet = Outlet(
        "tested", settings, metrics, producers, producers, acknowledger, room, asyncio.Lock()
    )
    crew = Crew(outlet, ANYTHING, ANYTHING, ANYTHING)
    for epoch in range(1, 4):
        crew._begin(0, [Lease(0, epoch, 0, 0)], {}, 0.0)
        publisher = crew._publishers[crew.lanes[0]]
        crew.lost(crew.lanes[0])
        await asyncio.wait({publisher})
    assert crew.lanes == {}
    assert crew._publishers == {}
