"""Who else names an object: the look-ups of the catalog, by index, and the lock around them."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from unicodedata import normalize
from urllib.parse import unquote

from sqlalchemy import ARRAY, BigInteger, Integer, Text, TextClause, bindparam, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import LookUp
from lethe_eraser.domain import ObjectRef

_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]

_BY_INDEX: Final = text("select set_config('enable_seqscan', 'off', true)")
_LOCK: Final = text(
    """
    select pg_advisory_xact_lock(number)
    from (select number from unnest(:numbers) as number order by number offset 0) as in_order
    """
).bindparams(bindparam("numbers", type_=ARRAY(BigInteger)))
EXPLAIN: Final = "explain (format json) "
_INDEX_SCANS: Final = frozenset({"Index Scan", "Index Only Scan", "Bitmap Index Scan"})


_LEFT: Final = tuple(
    re.compile(encoded)
    for encoded in (
        "%2[1789A]",
        "%(?:2[146789ABC]|3[ABD]|40)",
        "%(?:2[46BC]|3[ABD]|40)",
        "(?:%[89A-F][0-9A-F])+",
    )
)
"""What encoders of URLs leave as it is: `encodeURIComponent`, `encodeURI`, Go's, those of IRIs."""

LOCKS: Final = 512
"""The most locks that one transaction takes, however many objects it lets go of."""
_LOCKS_FROM: Final = int.from_bytes(b"lethe-ob", "big")
"""Beside the numbers that a product's own advisory locks are likely to have."""


async def lock_objects(connection: AsyncConnection, refs: Iterable[ObjectRef]) -> None:
    """Lock objects until the transaction ends, in one order for everybody.

    Whoever counts references under these locks sees what every earlier holder committed. What is
    locked is a hash class of theirs: all sessions of a server share room for a few thousand locks.
    """
    numbers = sorted({_number(ref) for ref in refs})
    if numbers:
        await connection.execute(_LOCK, {"numbers": numbers})


async def referenced(
    connection: AsyncConnection, look_ups: Sequence[LookUp], refs: Sequence[ObjectRef]
) -> frozenset[ObjectRef]:
    """Give those of `refs` that any row names now: one statement per look-up, by its index."""
    named: set[ObjectRef] = set()
    if refs:
        await connection.execute(_BY_INDEX)
    for look_up in look_ups:
        wanted = [
            (form, i)
            for i, ref in enumerate(refs)
            for form in _written(look_up, ref)
            if "\0" not in form  # No text of PostgreSQL holds it, and none is compared with it.
        ]
        if not wanted:
            continue
        found = await connection.execute(
            _statement(look_up),
            {"forms": [form for form, _ in wanted], "numbers": [i for _, i in wanted]},
        )
        named.update(refs[i] for (i,) in found)
    return frozenset(named)


def _written(look_up: LookUp, ref: ObjectRef) -> Iterable[str]:
    """Give all that rows may write and mean `ref` by: other readings of it lead there, too."""
    keys = {ref.key, *(normalize(form, ref.key) for form in ("NFC", "NFD"))}
    forms = {form for key in keys for form in look_up.forms_of(ref._replace(key=key))}
    forms |= {left.sub(lambda m: unquote(m[0]), form) for left in _LEFT for form in forms}
    forms |= {re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), form) for form in forms}
    # A raw plus is read as a space, or as itself.
    forms |= {form.replace("%20", "+") for form in forms}
    return forms | {re.sub("%2[Bb]", "+", form) for form in forms}


async def unproven(connection: AsyncConnection, look_up: LookUp) -> str | None:
    """Say why a look-up cannot be used; None if EXPLAIN proves that an index serves it.

    The planner is kept from reading the table as a whole, so it does only if it has no other way.
    """
    explain = _statement(look_up, prefix=EXPLAIN)
    try:
        served = await by_index(connection, explain, {"forms": ["x"], "numbers": [0]})
    except DBAPIError as error:
        # What PostgreSQL says of the expression: names, no data.
        diagnosis = getattr(error.orig, "diag", None)
        return (
            f"is no expression over the table: {getattr(diagnosis, 'message_primary', 'refused')}"
        )
    return None if served else "no index serves it; create one on exactly this expression"


async def by_index(
    connection: AsyncConnection, explain: TextClause, parameters: Mapping[str, object]
) -> bool:
    """Say whether a statement reads its table by an index only; `explain` begins with `EXPLAIN`."""
    async with connection.begin_nested():
        await connection.execute(_BY_INDEX)
        [[plan]] = (await connection.execute(explain, parameters)).scalars()
    scans = [node for node in _nodes(plan["Plan"]) if "Scan" in node["Node Type"]]
    of_table = [
        node
        for node in scans
        if node["Node Type"] not in {"Function Scan", "Bitmap Heap Scan", "Subquery Scan"}
    ]
    return bool(of_table) and all(
        node["Node Type"] in _INDEX_SCANS and "Index Cond" in node for node in of_table
    )


def _statement(look_up: LookUp, prefix: str = "") -> TextClause:
    condition = "@> array[lethe_wanted.lethe_form]" if look_up.many else "= lethe_wanted.lethe_form"
    # A LIMIT below a LATERAL keeps one question per object, whatever the planner thinks of them.
    return text(
        f"{prefix}select distinct lethe_wanted.lethe_number "  # noqa: S608 - names and the expression are the catalog's
        f"from unnest(:forms, :numbers) as lethe_wanted(lethe_form, lethe_number) "
        f"cross join lateral (select 1 from {_quote(look_up.table.schema)}."
        f"{_quote(look_up.table.name)} where ({_plain(look_up.expression)}) {condition} limit 1)"
        f" as lethe_hit"
    ).bindparams(bindparam("forms", type_=ARRAY(Text)), bindparam("numbers", type_=ARRAY(Integer)))


def _plain(expression: str) -> str:
    """Keep every colon of the expression from beginning a parameter of ours."""
    return expression.replace("::", "\0").replace(":", "\\:").replace("\0", "::")


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _number(ref: ObjectRef) -> int:
    name = f"{ref.bucket}\0{ref.key}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(name, digest_size=8, person=b"lethe-object").digest()
    return _LOCKS_FROM + int.from_bytes(digest, "big") % LOCKS
