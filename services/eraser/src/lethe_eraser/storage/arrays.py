"""Comparing with many values by one parameter."""

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import ARRAY, ColumnElement, any_, literal

T = TypeVar("T")


def one_of(column: ColumnElement[T], values: Iterable[T]) -> ColumnElement[bool]:
    """Say that `column` is one of `values`, whose number does not change the statement.

    With `in_`, each value is a parameter of its own: a statement of thousands of characters that
    SQLAlchemy and the driver write and read anew for every number of values.
    """
    array: ColumnElement[Any] = literal(list(values), ARRAY(column.type))
    return column == any_(array)
