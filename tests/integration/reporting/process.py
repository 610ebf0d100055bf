"""`lethe reporting run` as a process of its own, to be killed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer

from lethe_contracts.codec import Envelope, encode
from lethe_contracts.events import Event


class Processes:
    """Starts the service and publishes for it; nothing is left running at the end."""

    def __init__(self, environment: dict[str, str], bootstrap: str) -> None:
        outside = {name: value for name, value in os.environ.items() if "LETHE_" not in name}
        self._environment = {**outside, **environment}
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._started: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._producer.stop()
        for process in self._started:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def start(self) -> asyncio.subprocess.Process:
        """Start the service; it logs to a pipe that `port` reads."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lethe_reporting",
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
        )
        self._started.append(process)
        return process

    async def port(self, process: asyncio.subprocess.Process) -> int:
        """Wait until the service listens, and say where."""
        assert process.stdout is not None
        async for line in process.stdout:
            said = json.loads(line)
            if said["event"] == "listening":
                return int(said["port"])
        raise AssertionError("the service ended before it listened")

    async def stop(self, process: asyncio.subprocess.Process, how: signal.Signals) -> int:
        """Send a signal and wait for the end: its exit code."""
        process.send_signal(how)
        await process.communicate()
        assert process.returncode is not None
        return process.returncode

    async def publish(self, envelopes: Sequence[Envelope[Event]]) -> None:
        """Publish in order, and wait until Kafka has everything."""
        sent = []
        for envelope in envelopes:
            record = encode(envelope)
            sent.append(
                await self._producer.send(
                    record.topic,
                    record.value,
                    key=record.key.encode(),
                    headers=list(record.headers),
                )
            )
        await asyncio.gather(*sent)
