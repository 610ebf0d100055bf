"""What a run took place on, and how much of it each part used."""

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import psutil
import psycopg

from lethe_sandbox.stack import Addresses

_PACKAGES = ("aiokafka", "psycopg", "sqlalchemy", "prometheus-client")
_SETTINGS = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "wal_level")


def facts(addresses: Addresses) -> dict[str, Any]:
    """Describe machine, servers, versions and load, before anything is measured."""
    with psycopg.connect(addresses.database_url("postgres", driver="")) as connection:
        postgres = {
            name: (connection.execute(f"SHOW {name}").fetchone() or ("",))[0] for name in _SETTINGS
        }
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // 1_000_000,
        "load_average": [round(one, 2) for one in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "postgres": postgres,
        "commit": _commit(),
    }


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - the user's git
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or None


@dataclass(frozen=True, slots=True)
class Load:
    """CPU seconds used so far by the servers and by the measured processes (`measured`)."""

    at: float
    seconds: Mapping[str, float]

    def until(self, later: Self, rows: int) -> dict[str, float]:
        """Give microseconds of CPU per row, by part, as `cpu_<part>_us`."""
        return {
            f"cpu_{part}_us": (later.seconds[part] - self.seconds[part]) / rows * 1e6
            for part in self.seconds
        }


class Meter:
    """Reads the CPU times of PostgreSQL, Kafka and the measured processes."""

    def __init__(self, addresses: Addresses, measured: Iterable[int]) -> None:
        kafka = int(addresses.kafka.rpartition(":")[2])
        self._servers = {
            "postgres": _listener(addresses.postgres.port),
            "kafka": _listener(kafka),
        }
        self._measured = [psutil.Process(pid) for pid in measured]

    def read(self) -> Load:
        """Take the times now."""
        seconds = {name: _tree_seconds(server) for name, server in self._servers.items()}
        seconds["measured"] = sum(map(_seconds, self._measured))
        return Load(time.perf_counter(), seconds)

    def resident_mb(self) -> float:
        """Give the resident memory of the largest measured process, in MB."""
        return max((one.memory_info().rss for one in self._measured), default=0) / 1e6


def _listener(port: int) -> psutil.Process:
    """Find the process that listens on `port`.

    Raises:
        LookupError: it is not this user's to see.
    """
    for one in psutil.net_connections("tcp"):
        if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN and one.pid:
            return psutil.Process(one.pid)
    raise LookupError(f"no process of this user listens on port {port}")


def _tree_seconds(server: psutil.Process) -> float:
    """CPU seconds of a server and all its children, those that ended included."""
    times = server.cpu_times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(map(_seconds, server.children()))


def _seconds(process: psutil.Process) -> float:
    """CPU seconds of a process; 0 when it is gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system
