"""Names of the product's database, as they stand in a statement that is written as text."""

from lethe_eraser.catalog import TableName


def quote(name: str) -> str:
    """Quote a name of any characters for `text`, which doubles a `%` itself."""
    escaped = name.replace('"', '""')
    return literal(f'"{escaped}"')


def qualified(table: TableName) -> str:
    """Give a table with its schema, quoted."""
    return f"{quote(table.schema)}.{quote(table.name)}"


def literal(expression: str) -> str:
    """Keep `text` from reading `:name` inside what the database says as a parameter."""
    return expression.replace(":", r"\:")
