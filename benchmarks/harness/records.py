"""The records everybody is measured with: 300 bytes over 5,000 keys, one header, 16 partitions.

Standard library only, for peers with their own packages. A value begins with the record's number,
by which whoever reads the topic back knows what is missing, double or out of order.
"""

KEYS = 5_000
SIZE = 300
DIGITS = 10
PARTITIONS = 16
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = [("traceparent", TRACEPARENT)]


def key(number: int) -> str:
    """Return the key of record `number`; the keys come in turn."""
    return f"k{number % KEYS}"


def value(number: int) -> bytes:
    """Return the value of record `number`."""
    return b"%010d" % number + b"x" * (SIZE - DIGITS)


def number_of(found: bytes) -> int:
    """Read the number of a record from its value."""
    return int(found[:DIGITS])


VALUE_SQL = f"convert_to(lpad(g::text, {DIGITS}, '0') || repeat('x', {SIZE - DIGITS}), 'UTF8')"
"""The value of record `g` as PostgreSQL writes it."""

KEY_SQL = f"'k' || mod(g, {KEYS})"
"""Its key."""
