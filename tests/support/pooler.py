"""pgbouncer in transaction mode, in front of one database."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from tests.support.tools import program
from tests.support.waiting import until_sync


class Pooler:
    """One pgbouncer, to be killed and started again on its port."""

    def __init__(self, database_url: str, folder: Path, *, servers: int) -> None:
        server = make_url(database_url)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._log = folder / "pgbouncer.log"
        self._configuration = folder / "pgbouncer.ini"
        self._configuration.write_text(_configuration(server, self._port, servers))
        self.url = server.set(host="127.0.0.1", port=self._port).render_as_string(
            hide_password=False
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [program("pgbouncer"), str(self._configuration)], stdout=output, stderr=output
            )
        until_sync(self._answers, what="pgbouncer")

    def kill(self) -> None:
        """End it at once, with every connection through it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def pooler(database_url: str, folder: Path, *, servers: int = 3) -> Iterator[Pooler]:
    """Run one with so few server connections that clients have to share them."""
    found = Pooler(database_url, folder, servers=servers)
    found.start()
    try:
        yield found
    finally:
        found.kill()


def _configuration(server: URL, port: int, servers: int) -> str:
    # Whoever connects is taken for the database's user: the port is open to this machine only.
    where = f"host={server.host} port={server.port} dbname={server.database}"
    lines = [
        "[databases]",
        f"{server.database} = {where} user={server.username} password={server.password}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = any",
        "pool_mode = transaction",
        f"default_pool_size = {servers}",
        "ignore_startup_parameters = options,extra_float_digits",
        *(["user = nobody"] if os.geteuid() == 0 else []),
    ]
    return "\n".join(lines) + "\n"
