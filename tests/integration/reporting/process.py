"""`lethe reporting run` as a process of its own, to be killed."""

import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer

from lethe_contracts.codec import Envelope, encode
from lethe_contracts.events import Event
from tests.support.forked import Forked, fork_lethe
from tests.support.waiting import until


class Processes:
    """Starts the service and publishes for it; nothing is left running at the end."""

    def __init__(self, environment: dict[str, str], bootstrap: str, folder: Path) -> None:
        self._environment = environment
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._folder = folder
        self._started: dict[Forked, Path] = {}

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
            process.kill()
            await asyncio.to_thread(process.wait)

    async def start(self) -> Forked:
        """Start the service; it logs to a file that `url` reads."""
        number = len(self._started)
        log = self._folder / f"reporting-{number}.log"
        process = fork_lethe(
            self._environment, "reporting", "run", out=log, err=log.with_suffix(".err")
        )
        self._started[process] = log
        return process

    async def url(self, process: Forked) -> str:
        """Wait until the service listens, and say where."""

        def listening() -> int | None:
            whole = self._started[process].read_text().rpartition("\n")[0].splitlines()
            lines = [line for line in map(json.loads, whole) if line["event"] == "listening"]
            assert lines or process.poll() is None, "the service ended before it listened"
            return int(lines[0]["port"]) if lines else None

        return f"http://127.0.0.1:{await until(listening, within=60, what='a port')}"

    async def stop(self, process: Forked, how: signal.Signals) -> int:
        """Send a signal and wait for the end: its exit code."""
        process.send_signal(how)
        return await asyncio.to_thread(process.wait)

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
