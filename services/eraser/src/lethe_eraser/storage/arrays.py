"""Many values as one parameter."""

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Text, TypeDecorator, any_, cast, literal
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import BindParameter

T = TypeVar("T")


class BigIntegers(TypeDecorator[Iterable[int]]):
    """Whole numbers, sent as PostgreSQL writes an array and read there.

    The driver writes a list number by number in Python, which took a twentieth of an eraser's time.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(
        self,
        value: Iterable[int] | None,
        dialect: Dialect,  # noqa: ARG002  # SQLAlchemy's signature
    ) -> str | None:
        """Write the array; a number is never in need of quotes."""
        return None if value is None else f"{{{','.join(map(int.__repr__, value))}}}"

    def bind_expression(self, bindparam: BindParameter[Any]) -> ColumnElement[Any]:
        """Read it as an array."""
        return cast(bindparam, ARRAY(BigInteger))


def one_of(column: ColumnElement[T], values: Iterable[T]) -> ColumnElement[bool]:
    """Say that `column` is one of `values`, whose number does not change the statement.

    With `in_`, each value is a parameter of its own: a statement of thousands of characters that
    SQLAlchemy and the driver write and read anew for every number of values.
    """
    numbers = isinstance(column.type, BigInteger)
    type_: Any = BigIntegers() if numbers else ARRAY(column.type)
    array: ColumnElement[Any] = literal(list(values), type_)
    return column == any_(array)
