"""A start that is given up comes to its end first, but not for ever."""

import asyncio

import pytest

from lethe_outbox.kafka.clients import started


class Client:
    """Starts when it may; remembers how that ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = ""

    async def start(self) -> None:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "whole"


async def give_up(client: Client) -> asyncio.Task[None]:
    starting = asyncio.create_task(started(client))
    await client.begun.wait()
    starting.cancel()
    return starting


async def test_a_start_that_is_given_up_ends_whole() -> None:
    client = Client()
    starting = await give_up(client)
    client.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert client.ended == "whole"


async def test_a_start_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lethe_outbox.kafka.clients._STARTING_SECONDS", 0.01)
    client = Client()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(await give_up(client), 20)
    assert client.ended == "cancelled"


async def test_what_a_start_raises_is_raised() -> None:
    class Refused(Client):
        async def start(self) -> None:
            raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await started(Refused())
