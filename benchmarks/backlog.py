"""A backlog in an outbox: 300-byte values over 5,000 keys, written by the server itself."""

import psycopg
from psycopg import sql

from lethe_outbox import bucket_of

KEYS = 5_000
SIZE = 300
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_HEADERS = b"traceparent\0" + TRACEPARENT


def value(number: int) -> bytes:
    """Return the value of row `number`."""
    return b"%010d" % number + b"x" * (SIZE - 10)


def fill(plain_url: str, topic: str, rows: int) -> None:
    """Insert `rows` pending rows, the keys in turn, and settle the statistics."""
    with psycopg.connect(plain_url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE keys (n int PRIMARY KEY, bucket smallint)")
        with connection.cursor().copy("COPY keys FROM STDIN") as copy:
            for n in range(KEYS):
                copy.write_row((n, bucket_of(f"k{n}")))
        connection.execute(
            sql.SQL(
                "INSERT INTO lethe.outbox (event_id, topic, key, bucket, payload, headers) "
                "SELECT uuidv7(), {topic}, 'k' || keys.n, keys.bucket,"
                " convert_to(lpad(g::text, 10, '0') || repeat('x', {pad}), 'UTF8'), {headers} "
                "FROM generate_series(0, {last}) g JOIN keys ON keys.n = g % {keys} ORDER BY g"
            ).format(
                topic=sql.Literal(topic),
                pad=sql.Literal(SIZE - 10),
                headers=sql.Literal(_HEADERS),
                last=sql.Literal(rows - 1),
                keys=sql.Literal(KEYS),
            )
        )
        connection.execute("VACUUM ANALYZE lethe.outbox")
        connection.execute("CHECKPOINT")
