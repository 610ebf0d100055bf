"""W3C trace context, carried and begun: a request's trace goes on with its events."""

import re
import secrets
from typing import Final

_SHAPE: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def begin() -> str:
    """Begin a trace: a fresh `traceparent`, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def parse(value: str | None) -> str | None:
    """Return `value` if it is a valid `traceparent` of version 00, else None."""
    found = _SHAPE.fullmatch(value) if value else None
    if found is None or set(found[1]) == {"0"} or set(found[2]) == {"0"}:
        return None
    return found[0]


def carry_or_begin(value: str | None) -> str:
    """Go on with the trace of an incoming header, or begin one."""
    return parse(value) or begin()
