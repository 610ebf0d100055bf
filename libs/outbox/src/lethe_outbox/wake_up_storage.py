"""The SQL of wake-up hints: one channel per outbox, NOTIFY in a transaction of its own."""

from typing import Final

from lethe_outbox.names import qualified, quoted

_MOST_BYTES: Final = 63
"""Of a channel's name; PostgreSQL refuses longer ones."""

NOTIFY: Final = "select pg_notify($1, $2)"


def channel(schema: str | None) -> str:
    """Name the channel of the outbox in `schema`; a channel belongs to one database."""
    name = f"{schema or ''}.outbox.wake"
    return name.encode()[-_MOST_BYTES:].decode(errors="ignore")


def listen(schema: str | None) -> str:
    """Compose the statement by which a connection begins to listen."""
    return f"listen {quoted(channel(schema))}"


def insertion(schema: str | None) -> str:
    """Give what every statement contains by which `Outbox.append` writes."""
    return f"INSERT INTO {qualified(schema, 'outbox')} ("
