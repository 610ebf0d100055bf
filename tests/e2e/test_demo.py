"""`lethe demo` as somebody who has just cloned this runs it, and as they interrupt it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from lethe_sandbox.stack import Folders, Instance, Recorded, read, sweep
from tests.support.waiting import until_sync

FOLDERS = Folders.of_checkout()
SERVICES = {"intake", "relay", "eraser", "reporting"}
SERVERS = {"postgres", "kafka", "redis", "s3"}

# Under names of their own: a sandbox or a demo of the developer's may run in this checkout as well.
DEMO = """
import signal
import sys
from rich.console import Console
from lethe_sandbox import demo
from lethe_sandbox.progress import ConsoleScreen
# Who started the tests in the background may have told everybody to ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
demo.KEPT = "kept-e2e"
with ConsoleScreen(Console()) as screen:
    demo.run(demo.Options(keep="--keep" in sys.argv, scale=0.002, name="e2e"), screen)
"""
LETHE = str(Path(sys.executable).with_name("lethe"))


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", DEMO, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def recorded(name: str) -> Recorded:
    found = read(FOLDERS.instances / name)
    assert found is not None
    return found


def test_it_ends_with_a_passing_audit_and_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [LETHE, "demo", "--scale", "0.002"],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "image-to-image" in done.stdout
    assert "everything is stopped and removed" in done.stdout


def test_kept_it_leaves_everything_running_and_says_where() -> None:
    instance = Instance(FOLDERS, "kept-e2e", kept=True)
    try:
        with demo("--keep") as process:
            said, _ = process.communicate()
        assert process.returncode == 0, said
        kept = recorded("kept-e2e")
        running = {name for name, one in kept.processes.items() if one.alive()}
        assert running >= SERVICES | SERVERS
        for line in said.splitlines():
            if "is ready at" in line:
                assert httpx.get(f"{line.split()[-1]}/readyz").is_success
        environment = FOLDERS.instances / "kept-e2e" / "environment"
        assert str(environment) in said
        assert environment.stat().st_mode & 0o777 == 0o600
        assert kept.addresses is not None
        with psycopg.connect(kept.addresses.database_url("product", driver="")) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM client").fetchone() == (True,)
    finally:
        if instance.adopt():
            instance.discard()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_in_the_middle_nothing_goes_on(number: signal.Signals) -> None:
    with demo() as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "erasure requests over HTTP" in line)
        running = dict(recorded("e2e").processes)
        assert running.keys() >= SERVICES | SERVERS, line
        process.send_signal(number)
        process.stdout.read()
        assert process.wait() != 0

    def left() -> list[str]:
        return [name for name, one in running.items() if one.alive()]

    until_sync(lambda: not left(), what="the end of everything")
    if number == signal.SIGKILL:
        sweep(FOLDERS)
    assert not (FOLDERS.instances / "e2e").exists()
