"""Client rows in the product's tables: by the page, and their masks. Nothing here commits."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Select,
    TableClause,
    Text,
    Uuid,
    cast,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from lethe_eraser.catalog import ClientTable
from lethe_eraser.storage.arrays import BigIntegers
from lethe_eraser.storage.catalogued import mask_values, table_of

KeyPart = int | str | datetime | UUID | bool
PrimaryKey = tuple[KeyPart, ...]


class NotMaskedError(Exception):
    """Client rows that were there a moment ago did not take their masks.

    A trigger or a policy of the product keeps them as they were, or somebody just deleted one or
    gave it to another person.
    """


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One client row: its primary key and its request."""

    primary_key: PrimaryKey
    request_id: int | None

    @property
    def cursor(self) -> str:
        """Where to go on after it."""
        return _cursor((self.request_id, *self.primary_key))


@dataclass(frozen=True, slots=True)
class Expected:
    """How many client rows of a type there are, and how many of them name no request."""

    request_type: str
    rows: int
    without_request: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Where to go on in a type: after a cursor; `without_request` reads those rows, too."""

    request_type: str
    after: str | None
    without_request: bool


async def expected_of(
    connection: AsyncConnection, source: ClientTable, subject: str
) -> list[Expected]:
    """Count `subject`'s client rows per request type; a NULL type counts as the empty string.

    Rows that are masked are nobody's, whatever `subject` is.
    """
    if source.masks_as(subject):
        return []
    rows = _client(source)
    type_ = func.coalesce(cast(rows.c[source.request_type], Text), "")
    without = func.count().filter(rows.c[source.request_id].is_(None))
    statement = (
        select(type_, func.count(), without)
        .where(rows.c[source.client_key] == subject)
        .group_by(type_)
        .order_by(type_)
    )
    return [Expected(*row) for row in await connection.execute(statement)]


async def types_of(
    connection: AsyncConnection, source: ClientTable, subject: str
) -> dict[str, int]:
    """Count `subject`'s client rows per request type, as `expected_of` does."""
    return {e.request_type: e.rows for e in await expected_of(connection, source, subject)}


async def page_client_rows(
    connection: AsyncConnection,
    source: ClientTable,
    subject: str,
    request_type: str,
    *,
    after: str | None,
    limit: int,
) -> list[ClientRow]:
    """Read up to `limit` of `subject`'s client rows of one type, going on after cursor `after`.

    The order is request id, then primary key, so the table's index serves it; rows without a
    request id come last. An empty `request_type` also means NULL.
    """
    begin = Begin(request_type, after, without_request=True)
    [found] = await page_of_each(connection, source, subject, [begin], limit=limit)
    return found


async def page_of_each(
    connection: AsyncConnection,
    source: ClientTable,
    subject: str,
    begins: Sequence[Begin],
    *,
    limit: int,
) -> list[list[ClientRow]]:
    """Read a page of every one of `begins`, as `page_client_rows` does, in one statement or two."""
    if len(begins) > 1 and all(begin.after is None for begin in begins):
        whole = await _whole(connection, source, subject, begins, limit)
        if whole is not None:
            return whole
    pages = [
        page.add_columns(literal(number).label("number")).limit(limit)
        for number, begin in enumerate(begins)
        for page in _pages(source, subject, begin)
    ]
    found: list[list[ClientRow]] = [[] for _ in begins]
    statement = pages[0] if len(pages) == 1 else union_all(*pages)
    for request_id, *primary_key, number in await connection.execute(statement):
        found[number].append(ClientRow(tuple(primary_key), request_id))
    return [_in_order(rows)[:limit] for rows in found]


async def mask_client_rows(
    connection: AsyncConnection,
    source: ClientTable,
    subject: str,
    primary_keys: Sequence[PrimaryKey],
) -> int:
    """Mask `subject`'s client rows with these primary keys; gives how many there were.

    Raises:
        NotMaskedError: there were fewer, or one of them is not masked for all that.
    """
    if not primary_keys:
        return 0
    rows = _client(source)
    keys = _unnest({f"k{i}": part for i, part in enumerate(zip(*primary_keys, strict=True))})
    remains = [
        cast(rows.c[name], Text).is_distinct_from(literal(mask.text, Text))
        for name, mask in source.masks.items()
    ]
    statement = (
        update(rows)
        .values(mask_values(source.masks))
        .where(
            rows.c[source.client_key] == subject,
            *(rows.c[name] == keys.c[f"k{i}"] for i, name in enumerate(source.primary_key)),
        )
        .returning(or_(*remains))
    )
    unmasked = (await connection.execute(statement)).scalars().all()
    if any(unmasked) or len(unmasked) < len(primary_keys):
        raise NotMaskedError
    return len(unmasked)


def _client(source: ClientTable) -> TableClause:
    return table_of(source.table, source.columns)


async def _whole(
    connection: AsyncConnection,
    source: ClientTable,
    subject: str,
    begins: Sequence[Begin],
    limit: int,
) -> list[list[ClientRow]] | None:
    """Read all rows of whole types at once, which is planned once; None if they are too many."""
    rows = _client(source)
    request, type_ = rows.c[source.request_id], rows.c[source.request_type]
    key = [rows.c[name] for name in source.primary_key]
    types = {begin.request_type: number for number, begin in enumerate(begins)}
    of_types: ColumnElement[bool] = type_ == func.any(literal(sorted(types), ARRAY(Text)))
    statement = (
        select(func.coalesce(cast(type_, Text), ""), request, *key)
        .where(
            rows.c[source.client_key] == subject,
            or_(of_types, type_.is_(None)) if "" in types else of_types,
        )
        .order_by(request, *key)
        .limit(limit + 1)
    )
    answer = (await connection.execute(statement)).all()
    if len(answer) > limit:
        return None
    found: list[list[ClientRow]] = [[] for _ in begins]
    for request_type, request_id, *primary_key in answer:
        found[types[request_type]].append(ClientRow(tuple(primary_key), request_id))
    return found


def _pages(source: ClientTable, subject: str, begin: Begin) -> Iterator[Select[Any]]:
    """Give the page of rows with a request id, and the one of those without, as far as wanted."""
    rows = _client(source)
    request, type_ = rows.c[source.request_id], rows.c[source.request_type]
    key = [rows.c[name] for name in source.primary_key]
    of_type: ColumnElement[bool] = type_ == begin.request_type
    plain = select(request, *key).where(
        rows.c[source.client_key] == subject,
        of_type if begin.request_type else or_(of_type, type_.is_(None)),
    )
    last = () if begin.after is None else _parse_cursor(begin.after)
    if not last or last[0] is not None:
        with_id = plain.where(request.is_not(None)).order_by(request, *key)
        yield _after(with_id, [request, *key], last)
    if begin.without_request or (last and last[0] is None):
        without = plain.where(request.is_(None)).order_by(*key)
        yield _after(without, key, last[1:] if last and last[0] is None else ())


def _after(
    page: Select[Any], order: Sequence[ColumnElement[Any]], position: Sequence[Any]
) -> Select[Any]:
    if not position:
        return page
    values = [literal(part, _type_of(part)) for part in position]
    return page.where(tuple_(*order) > tuple_(*values))


def _in_order(rows: list[ClientRow]) -> list[ClientRow]:
    """Put those without a request last: no word says in which order a union gives its parts."""
    return sorted(rows, key=lambda row: row.request_id is None)


def _unnest(columns: Mapping[str, Sequence[KeyPart]]) -> Any:
    arrays = [literal(list(part), _array_of(part[0])) for part in columns.values()]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name="wanted")


def _array_of(part: KeyPart) -> TypeEngine[Any]:
    is_number = isinstance(part, int) and not isinstance(part, bool)
    return BigIntegers() if is_number else ARRAY(_type_of(part))


def _type_of(part: KeyPart) -> TypeEngine[Any]:
    if isinstance(part, bool):
        return Boolean()
    if isinstance(part, int):
        return BigInteger()
    if isinstance(part, datetime):
        return DateTime(timezone=part.tzinfo is not None)
    return Uuid() if isinstance(part, UUID) else Text()


def _cursor(position: Iterable[KeyPart | None]) -> str:
    return json.dumps([_written(part) for part in position], ensure_ascii=False)


def _written(part: KeyPart | None) -> object:
    if isinstance(part, datetime):
        return {"at": part.isoformat()}
    return {"uuid": str(part)} if isinstance(part, UUID) else part


def _parse_cursor(text: str) -> tuple[KeyPart | None, ...]:
    return tuple(_read(part) for part in json.loads(text))


def _read(part: Any) -> KeyPart | None:
    if not isinstance(part, dict):
        return part  # type: ignore[no-any-return]  # JSON's own scalars, as `_written` left them
    if "at" in part:
        return datetime.fromisoformat(part["at"])
    return UUID(part["uuid"])
