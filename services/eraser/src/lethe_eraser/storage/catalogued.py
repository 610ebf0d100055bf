"""Tables of the catalog as SQLAlchemy takes them. Every name is quoted, every value a parameter."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnClause, ColumnElement, TableClause, column, literal, null, table
from sqlalchemy.types import NullType

from lethe_eraser.catalog import Mask, TableName


def table_of(name: TableName, columns: Iterable[str]) -> TableClause:
    """Give a table with these columns, of any type."""
    clauses: list[ColumnClause[Any]] = [column(c) for c in sorted(columns)]
    return table(name.name, *clauses, schema=name.schema)


def mask_values(masks: Mapping[str, Mask]) -> dict[str, ColumnElement[Any]]:
    """Give masks as parameters without a type, so that each takes its column's."""
    return {
        name: null() if mask.text is None else literal(mask.text, NullType())
        for name, mask in sorted(masks.items())
    }
