"""A measured process: it says when it is ready, waits for the word, works, and tells its figures.

The two ends speak lines of JSON over standard input and output. Peak memory is VmHWM of the process
itself (`ru_maxrss` is inherited through fork and exec).
"""

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of a process took."""

    seconds: float
    peak_mib: float
    told: dict[str, Any]


def measure(module: str, *arguments: str) -> Measured:
    """Run `python -m MODULE ARGUMENTS`, and time it from the word to its answer."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process has no pipes")
        _said(process.stdout.readline(), module)
        started = time.perf_counter()
        process.stdin.write("go\n")
        process.stdin.flush()
        told = _said(process.stdout.readline(), module)
        seconds = time.perf_counter() - started
        process.stdin.close()
        process.wait(60)
    return Measured(seconds, told.pop("peak_mib"), told)


async def answer(work: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Be the measured end: say ready, wait for the word, work, tell the figures."""
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    told = await work()
    print(json.dumps({**told, "peak_mib": peak_mib()}), flush=True)


def peak_mib() -> float:
    """Read this process's own peak of resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell VmHWM")


def _said(line: str, module: str) -> dict[str, Any]:
    if not line:
        raise RuntimeError(f"{module} ended without an answer")
    found: dict[str, Any] = json.loads(line)
    return found
