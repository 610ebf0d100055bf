"""The tables as plain SQL, for those who do not migrate with Alembic.

`python -m lethe_outbox schema` prints it.
"""

import io
from collections.abc import Collection
from typing import Final

from lethe_outbox.migrations import PARTS
from lethe_outbox.schema import DEFAULT_SCHEMA

ALL_PARTS: Final = tuple(PARTS)


def schema_sql(schema: str | None = DEFAULT_SCHEMA, parts: Collection[str] = ALL_PARTS) -> str:
    """Write the statements that create `parts` in an empty schema, as the Alembic helpers do.

    Partitions are those of the current month and the next ones; a relay's janitor makes more.

    Args:
        schema: where the tables go; None for the search path.
        parts: of `ALL_PARTS`.
    """
    from alembic.migration import MigrationContext  # noqa: PLC0415 - of no use to who appends
    from alembic.operations import Operations  # noqa: PLC0415 - likewise

    script = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={"as_sql": True, "literal_binds": True, "output_buffer": script},
        # The default one doubles every per cent sign, for a driver that is not here.
        dialect_opts={"paramstyle": "named"},
    )
    op = Operations(context)
    for part, steps in PARTS.items():
        if part in parts:
            for create in steps:
                create(op, schema)
    return f"BEGIN;\n\n{script.getvalue().strip()}\n\nCOMMIT;\n"
