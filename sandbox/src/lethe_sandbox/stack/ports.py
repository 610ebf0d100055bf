"""Free TCP ports on the loopback interface."""

import random
import socket
from typing import Final

# Below the range the kernel gives to outgoing connections: there, a client of a stopped server
# could be given the server's own port, keep it from coming back, or even connect to itself.
_RANGE: Final = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """Pick `count` ports nobody listens on now; whoever uses them must be ready to pick again."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_RANGE)  # noqa: S311 - nothing secret about it
        if port not in found and is_free(port):
            found.append(port)
    return tuple(found)
