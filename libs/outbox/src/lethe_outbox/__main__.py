"""`python -m lethe_outbox schema`: the tables as plain SQL, without any service."""

import argparse
import sys
from collections.abc import Sequence

from lethe_outbox.plain_sql import ALL_PARTS, schema_sql
from lethe_outbox.schema import DEFAULT_SCHEMA


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lethe_outbox", description="A transactional outbox on PostgreSQL and Kafka."
    )
    commands = parser.add_subparsers(required=True)
    schema = commands.add_parser("schema", help="print the SQL that creates the tables")
    schema.add_argument(
        "--schema", default=DEFAULT_SCHEMA, help="where the tables go (default: %(default)s)"
    )
    schema.add_argument(
        "--only", action="append", choices=ALL_PARTS, help="a part; repeat it for more"
    )
    given = parser.parse_args(arguments)
    sys.stdout.write(schema_sql(given.schema, given.only or ALL_PARTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
