"""Each service, as a process with the variables of docker-compose.yml and every server away.

It starts, says what it waits for, exposes what its alerts and panels read, and stops when told.
"""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lethe_sandbox.stack.ports import free_ports
from tests.support.alerting import dashboards, panel_expressions, rules
from tests.support.compose import SERVICES, filled_environment, services
from tests.support.exposed import FOREIGN, series
from tests.support.promql import uses
from tests.support.tools import environment
from tests.support.waiting import until_sync

SERVER = re.compile(r"\b(?:postgres|kafka|redis|s3):\d+")
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
"""Of the samples of a family, by its type; a sample of the others is called as its family."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process and where it answers."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int

    def get(self, path: str) -> tuple[int, str]:
        """Ask for `path`; (0, "") while nobody answers."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()
        except OSError:
            return 0, ""


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Running]]:
    nobody, *ports = free_ports(1 + len(SERVICES))
    started: dict[str, Running] = {}
    try:
        for name, port in zip(SERVICES, ports, strict=True):
            own = {
                variable: SERVER.sub(f"127.0.0.1:{nobody}", value)
                for variable, value in filled_environment(name).items()
            }
            own[f"LETHE_{name.upper()}_HTTP_HOST"] = "127.0.0.1"
            own[f"LETHE_{name.upper()}_HTTP_PORT"] = str(port)
            # The image's entry point is `lethe`, and `python -m lethe_x` is `lethe x run`.
            assert services()[name]["command"] == [name, "run"]
            process = subprocess.Popen(
                [sys.executable, "-m", f"lethe_{name}"],
                env=environment() | own,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started[name] = Running(name, process, port)
        for one in started.values():
            until_sync(lambda one=one: one.get("/healthz")[0] == 200, within=120, what=one.name)  # type: ignore[misc] # mypy cannot infer a lambda's default
        yield started
    finally:
        for one in started.values():
            one.process.kill()
            one.process.wait(timeout=30)


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_alive_and_says_what_it_waits_for(running: dict[str, Running], service: str) -> None:
    status, body = running[service].get("/readyz")
    assert status == 503
    report = json.loads(body)
    assert report["ready"] is False
    assert "secret" not in body
    assert "127.0.0.1" not in body


def test_together_they_expose_every_metric_that_is_declared(running: dict[str, Running]) -> None:
    declared = set(series())
    told = {
        name
        for one in running.values()
        for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", one.get("/metrics")[1], re.MULTILINE)
        if kind
    }
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in declared}
    assert families <= told | {re.sub(r"_total$", "", name) for name in told}


def test_rules_and_panels_read_nothing_that_no_process_exposes(running: dict[str, Running]) -> None:
    exposed = {
        f"{family}{suffix}"
        for one in running.values()
        for family, kind in re.findall(r"^# TYPE (\S+) (\w+)", one.get("/metrics")[1], re.MULTILINE)
        for suffix in SUFFIXES.get(kind, ("",))
    }
    expressions = [rule.expression for rule in rules()]
    for board in dashboards().values():
        expressions += [expression for _, expression in panel_expressions(board)]
    read = {use.metric for expression in expressions for use in uses(expression)}
    assert read - FOREIGN.keys() <= exposed


@pytest.mark.parametrize("service", SERVICES)
def test_it_stops_when_told_though_nothing_answers(
    running: dict[str, Running], service: str
) -> None:
    process = running[service].process
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
