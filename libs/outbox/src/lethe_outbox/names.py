"""Names of tables as SQL, whatever characters a schema's name holds."""

from typing import Final

from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.compiler import IdentifierPreparer

# The default style of parameters would double every per cent sign.
_DIALECT: Final = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call] # SQLAlchemy's dialects carry no types
_PREPARER: Final = IdentifierPreparer(_DIALECT)


def quoted(name: str) -> str:
    """Quote one identifier."""
    return _PREPARER.quote_identifier(name)


def qualified(schema: str | None, table: str) -> str:
    """Quote a table's name with its schema, or alone where the search path decides."""
    return quoted(table) if schema is None else f"{quoted(schema)}.{quoted(table)}"


def literal(value: str) -> str:
    """Quote a text as SQL does (standard_conforming_strings is on)."""
    return "'" + value.replace("'", "''") + "'"


def for_text(fragment: str) -> str:
    """Make a fragment fit for SQLAlchemy's `text()`, in which a colon begins a parameter."""
    return fragment.replace(":", r"\:")
