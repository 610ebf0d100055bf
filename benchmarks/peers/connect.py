"""A Kafka Connect worker, standalone, and connectors told over its REST interface."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.worker import ROOT
from lethe_sandbox.stack.embedded.kafka import find_java
from lethe_sandbox.stack.ports import free_ports

JARS = ROOT / ".sandbox" / "peers"
_HEAP = ("-Xms256m", "-Xmx1g")
_PROPERTIES = """\
bootstrap.servers={bootstrap}
listeners=http://127.0.0.1:{port}
plugin.path={plugins}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.converters.ByteArrayConverter
offset.storage.file.filename={folder}/offsets
offset.flush.interval.ms=1000
connector.client.config.override.policy=All
"""
_ANSWER_SECONDS = 20
_PATIENCE_SECONDS = 60
_LOOK_SECONDS = 0.05
"""Between two questions to Connect, which tells nobody by itself."""


class ConnectError(Exception):
    """The worker, or a connector on it, does not do what it was told."""


class Connect:
    """A worker that answers on `port`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}/connectors"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, method: str, path: str = "", body: Mapping[str, Any] | None = None) -> Any:
        """Send one request and give what is answered, None where that is nothing."""
        request = urllib.request.Request(  # noqa: S310 - an address of ours
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - likewise
            said = answer.read()
        return json.loads(said) if said else None

    def configure(self, connector: str, config: Mapping[str, str]) -> None:
        """Create a connector, or change it, and wait until its task runs."""
        self.ask("PUT", f"/{connector}/config", config)
        self.wait_for(connector, "RUNNING")

    def wait_for(self, connector: str, state: str) -> None:
        """Wait until a connector and its task are `RUNNING`, or it is `STOPPED`."""
        wanted = [state, state] if state == "RUNNING" else [state]
        wait(lambda: self._states(connector) == wanted, f"{connector} is not {state}")

    def _states(self, connector: str) -> list[str]:
        try:
            status = self.ask("GET", f"/{connector}/status")
        except urllib.error.HTTPError:
            return []
        states = [status["connector"]["state"], *(one["state"] for one in status["tasks"])]
        if "FAILED" in states:
            raise ConnectError(json.dumps(status)[:2000])
        return states

    def answers(self) -> bool:
        """Say whether it is there."""
        if self._process.poll() is not None:
            raise ConnectError("Kafka Connect ended at its start")
        try:
            self.ask("GET")
        except OSError:
            return False
        return True


def wait(condition: Callable[[], bool], otherwise: str) -> None:
    """Look until something holds.

    Raises:
        ConnectError: it does not for a minute.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ConnectError(otherwise)
        time.sleep(_LOOK_SECONDS)


@contextmanager
def connect(bootstrap: str) -> Iterator[Connect]:
    """Run a worker; its log stays in `.sandbox/logs/connect.log`."""
    if not JARS.is_dir():
        raise FileNotFoundError("the peers are not installed: use `make bench-peers`")
    folder = Path(tempfile.mkdtemp(prefix="lethe-connect-"))
    (port,) = free_ports(1)
    properties = folder / "worker.properties"
    properties.write_text(
        _PROPERTIES.format(bootstrap=bootstrap, port=port, plugins=JARS / "plugins", folder=folder)
    )
    log = ROOT / ".sandbox" / "logs" / "connect.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [find_java(), *_HEAP, "-cp", f"{JARS / 'connect'}/*"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "org.apache.kafka.connect.cli.ConnectStandalone", properties],
            stdout=output,
            stderr=output,
        )
    try:
        worker = Connect(process, port)
        wait(worker.answers, f"Kafka Connect does not answer: see {log}")
        yield worker
    finally:
        process.terminate()
        try:
            process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
