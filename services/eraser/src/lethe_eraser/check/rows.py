"""Hold the catalog to a sample of rows: shapes, hosts and buckets that nobody claims."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog, Finding, FindingKind, ProductTable
from lethe_eraser.references import RowReader
from lethe_eraser.references.shapes import counted, parsed, places
from lethe_eraser.storage.product_sample import SampledRow, newest_and_random

NOBODY: Final = "\0nobody"
"""A person who does not exist: prefixes of theirs begin no key."""

SHOWN: Final = 5
"""Hosts or paths that a finding names."""

_HOST: Final = re.compile(
    r"\s*[a-z0-9+.-]*:?//([a-z0-9.-]{1,253})(?::\d+)?(?:[/?#]|$)", re.IGNORECASE
)
_KINDS: Final[dict[BlockReason, FindingKind]] = {
    BlockReason.UNRESOLVED_REFERENCE: "reference",
    BlockReason.REFERENCE_CONFLICT: "reference",
}
_SAYS: Final[dict[BlockReason, str]] = {
    BlockReason.UNRESOLVED_REFERENCE: "name a host or bucket that nobody claims",
    BlockReason.REFERENCE_CONFLICT: "hold references whose parts name different objects",
    BlockReason.MALFORMED_JSON: "are no JSON of any claimed shape",
    BlockReason.UNCOVERED: "hold URLs or keys that no rule claims",
}


async def check_rows(
    connection: AsyncConnection, catalog: Catalog, limit: int
) -> tuple[Finding, ...]:
    """Read a sample of every table that names objects; say what no rule explains."""
    reader = RowReader(catalog)
    findings: list[Finding] = []
    for feature in catalog.features.values():
        for table in feature.tables:
            kept = sorted(table.keep - {table.primary_key, table.request_id})
            unread = sorted(set(table.masks) - set(table.references))
            rows = await newest_and_random(
                connection,
                table.table,
                [*sorted(table.references), *kept, *unread],
                order_by=[table.primary_key],
                limit=limit,
            )
            findings += _of_references(reader, table, rows)
            findings += _of_kept(reader, table, kept, rows)
            findings += _of_unread(reader, table, unread, rows)
    return tuple(findings)


def _of_references(
    reader: RowReader, table: ProductTable, rows: Sequence[SampledRow]
) -> Iterator[Finding]:
    for column in sorted(table.references):
        wrong: defaultdict[BlockReason, list[str]] = defaultdict(list)
        for row in rows:
            text = row.values[column]
            found = reader.read_column(table, column, text, NOBODY)
            if isinstance(found, BlockReason) and text is not None:
                wrong[found].append(text)
        for reason, texts in sorted(wrong.items()):
            kind = _KINDS.get(reason, "shape")
            says = f"{len(texts)} of {len(rows)} sampled rows {_SAYS.get(reason, reason)}"
            shown = _hosts(reader, texts) if kind == "reference" else _paths(reader, texts)
            if shown:
                says += f": {', '.join(shown)}"
            yield Finding(kind, f"{table.table}.{column}", says)


def _of_kept(
    reader: RowReader, table: ProductTable, kept: Iterable[str], rows: Sequence[SampledRow]
) -> Iterator[Finding]:
    """A column that stays must not name objects: after masking it would still lead to them."""
    for column in kept:
        naming = sum(1 for row in rows if (text := row.values[column]) and reader.is_ours(text))
        if naming:
            says = f"{naming} of {len(rows)} sampled rows name objects, and it is kept; mask it"
            yield Finding("reference", f"{table.table}.{column}", says)


def _of_unread(
    reader: RowReader, table: ProductTable, unread: Iterable[str], rows: Sequence[SampledRow]
) -> Iterator[Finding]:
    """A masked column that no rule reads must not be what names objects: nobody finds them then."""
    for column in unread:
        texts = [text for row in rows if (text := row.values[column])]
        naming = sum(1 for text in texts if _is_reference(reader, text))
        if naming:
            says = (
                f"{naming} of {len(rows)} sampled rows name objects, and no rule reads them; add"
                f" `references: {{{column}: ...}}`, or keep arrays of them as JSON"
            )
            yield Finding("reference", f"{table.table}.{column}", says)


def _is_reference(reader: RowReader, text: str) -> bool:
    """Whether a value is a reference or an array of them, rather than words around a URL."""
    return reader.is_ours(text) and (reader.refers(text) or text.startswith("{"))


def _hosts(reader: RowReader, texts: Iterable[str]) -> list[str]:
    found: Counter[str] = Counter()
    for text in texts:
        value = parsed(text)
        strings = [text] if value is None else list(_strings(value))
        unknown = (one for one in strings if not reader.resolves(one))
        found.update({m[1].lower() for one in unknown if (m := _HOST.match(one))})
    return [host for host, _ in found.most_common(SHOWN)]


def _strings(value: object) -> Iterator[str]:
    collected: list[str] = []

    def take(text: str) -> bool:
        collected.append(text)
        return False

    list(places(value, take))
    return iter(collected)


def _paths(reader: RowReader, texts: Iterable[str]) -> list[str]:
    values = [value for text in texts if (value := parsed(text)) is not None]
    return [path for path, _ in counted(values, reader.refers).most_common(SHOWN)]
