"""From a row, as it was read, to the objects it names, or to the reason it is left alone.

Pure. Every URL of a JSON value is either claimed by a rule or blocks the row: what nobody claimed
is never masked, because after masking nobody could trace it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from unicodedata import normalize

from jsonpath import JSONPathError

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog.model import (
    Catalog,
    Ignored,
    ProductTable,
    ReferenceRule,
    Rules,
    SharedObjects,
)
from lethe_eraser.domain import ObjectRef
from lethe_eraser.references.reading import BlockedError, Found, Reading, found_by
from lethe_eraser.references.urls import (
    Resolver,
    Unresolved,
)

_EMPTY: Final[tuple[object, ...]] = (None, "", {}, [])
_URL: Final = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//[^/\s]", re.IGNORECASE)
_MAY_NAME: Final = re.compile(r"[./:]")
_AWS: Final = (r"\.amazonaws\.com", r"\.cloudfront\.net")
# An ARN also of outposts, of directory buckets, of access points that run code.
_URI: Final = re.compile(r"s3[an]?://|arn:aws[a-z-]*:s3", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sorted:
    """What becomes of a row's objects: those to delete, and how many stay."""

    delete: tuple[ObjectRef, ...]
    kept: int
    unless_referenced: tuple[ObjectRef, ...] = ()
    """Those to delete once no row names them any more."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """What the tags of objects say, as far as the catalog goes by them."""

    shared: frozenset[ObjectRef] = frozenset()
    untold: frozenset[ObjectRef] = frozenset()
    """Those whose tags S3 does not give: nobody knows whether they are shared."""


UNTAGGED: Final = Tagged()


class RowReader:
    """Reads what rows refer to, by one catalog's rules."""

    def __init__(self, catalog: Catalog) -> None:
        self._resolver = Resolver(catalog.buckets, catalog.hosts)
        self._shared: SharedObjects = catalog.shared
        self._bucket_names = frozenset(catalog.buckets)
        # A bucket whose name has a dot may be a host by itself.
        named = (*catalog.hosts, *(name for name in catalog.buckets if "." in name))
        ours = "|".join((*_AWS, *map(re.escape, named)))
        self._ours = re.compile(rf"(?:{ours})", re.IGNORECASE)

    def read(
        self, product: ProductTable, values: Mapping[str, str | None], subject: str
    ) -> Mapping[str, tuple[Found, ...]] | BlockReason:
        """Read the reference columns of a row of `product`, as text; give what each names."""
        try:
            return {
                column: tuple(self._column(rules, values[column], subject))
                for column, rules in product.references.items()
            }
        except BlockedError as blocked:
            return blocked.reason

    def read_column(
        self, product: ProductTable, column: str, text: str | None, subject: str
    ) -> tuple[Found, ...] | BlockReason:
        """Read one reference column of a row; give what it names."""
        try:
            return tuple(self._column(product.references[column], text, subject))
        except BlockedError as blocked:
            return blocked.reason

    def refers(self, text: str) -> bool:
        """Whether `text` looks like an object of ours, or a URL of anybody's."""
        return self._may_refer(text, ())

    def resolves(self, text: str) -> bool:
        """Whether `text`, as a URL, names an object of ours, or none at all."""
        return not isinstance(self._resolver.resolve_url(text), Unresolved)

    def is_bucket(self, text: str) -> bool:
        """Whether `text` is the name of one of our buckets."""
        return text in self._bucket_names

    def is_ours(self, text: str) -> bool:
        """Whether `text` names one of our buckets or hosts, or any of AWS's."""
        return self._ours.search(text) is not None or (
            ":" in text and _URI.search(text) is not None
        )

    def read_value(
        self, rules: Rules, value: object, subject: str
    ) -> tuple[Found, ...] | BlockReason:
        """Read a JSON value by `rules`, of which one must apply."""
        try:
            return tuple(self._value(rules, value, subject, may_be_empty=False))
        except BlockedError as blocked:
            return blocked.reason

    def sort(
        self,
        references: Iterable[Found],
        subject: str,
        existing: frozenset[ObjectRef],
        tagged: Tagged = UNTAGGED,
    ) -> Sorted | BlockReason:
        """Decide whose the objects of a row are.

        Args:
            references: What the row names.
            subject: The person who is erased.
            existing: Those of `undecided(references)` that are there.
            tagged: What the tags of `shared_by_tag(references, subject)` say.
        """
        delete: dict[ObjectRef, None] = {}
        counted: dict[ObjectRef, None] = {}
        stay: set[ObjectRef] = set()
        for found in references:
            meant = _meant(found, existing)
            theirs = [
                ref
                for ref in meant
                if self._is_theirs(ref, found, subject) and ref not in tagged.shared
            ]
            if not tagged.untold.isdisjoint(theirs):
                return BlockReason.OBJECT_NOT_DELETED
            if len(theirs) > 1 and found.ownership.under is None:
                # Below a person's own prefix all that is there is theirs; elsewhere it may not be.
                return BlockReason.AMBIGUOUS_REFERENCE
            into = counted if found.ownership.if_unreferenced else delete
            into.update(dict.fromkeys(theirs))
            if not theirs:
                stay.add(found.candidates[0])
        last = tuple(ref for ref in counted if ref not in delete)
        return Sorted(tuple(delete), len(stay - set(delete) - set(last)), last)

    def undecided(self, references: Iterable[Found]) -> Iterator[ObjectRef]:
        """Give the objects whose existence decides which of several a reference means."""
        for found in references:
            if len(found.candidates) > 1:
                yield from found.candidates

    def shared_by_tag(
        self, references: Iterable[Found], subject: str
    ) -> Mapping[ObjectRef, frozenset[tuple[str, str]]]:
        """Give those objects of the person that a tag may make shared, with such tags."""
        tags = self._shared.tags
        if not tags:
            return {}
        return {
            ref: tags[ref.bucket]
            for found in references
            for ref in found.candidates
            if ref.bucket in tags and self._is_theirs(ref, found, subject)
        }

    def _is_theirs(self, ref: ObjectRef, found: Found, subject: str) -> bool:
        prefix = found.ownership.prefix(subject)
        # The same name in another Unicode form is the same person's.
        below = normalize("NFC", ref.key).startswith(normalize("NFC", prefix))
        return below and not self._shared.holds(ref)

    def _column(self, rules: Rules, text: str | None, subject: str) -> Iterable[Found]:
        plain = next((r for r in rules if isinstance(r, ReferenceRule) and r.at is None), None)
        if text is None or not text.strip():
            return ()
        if plain is not None:
            return found_by(self._resolver.resolve_url(text, in_bucket=plain.in_bucket), plain)
        return self._json(rules, text, subject)

    def _json(self, rules: Rules, text: str, subject: str) -> list[Found]:
        try:
            value = _DECODER.decode(text)
        except (ValueError, RecursionError):
            raise BlockedError(BlockReason.MALFORMED_JSON) from None
        return self._value(rules, value, subject, may_be_empty=True)

    def _value(
        self, rules: Rules, value: object, subject: str, *, may_be_empty: bool
    ) -> list[Found]:
        if may_be_empty and value in _EMPTY:
            return []
        if not isinstance(value, dict | list):
            return self._scalar(rules, value)
        reading = Reading(self._resolver, value, must_apply=not may_be_empty)
        try:
            found = reading.references(rules)
        except (JSONPathError, RecursionError):
            raise BlockedError(BlockReason.MALFORMED_JSON) from None
        left = reading.unclaimed()
        # Most values have nothing left that could name an object.
        if _MAY_NAME.search("\n".join(left)) or not self._bucket_names.isdisjoint(left):
            prefixes = {r.ownership.prefix(subject) for r in rules if isinstance(r, ReferenceRule)}
            theirs = tuple(prefix for prefix in prefixes if prefix)
            if any(self._may_refer(text, theirs) for text in left):
                raise BlockedError(BlockReason.UNCOVERED)
        return found

    def _scalar(self, rules: Rules, value: object) -> list[Found]:
        # Not by its path: the JSONPath library would take a string for the text of a document.
        references = [rule for rule in rules if isinstance(rule, ReferenceRule)]
        is_ignored = any(isinstance(rule, Ignored) and rule.at.is_root for rule in rules)
        whole = [rule for rule in references if rule.is_root and not rule.is_object]
        if isinstance(value, str) and whole:
            resolution = self._resolver.resolve_url(value, in_bucket=whole[0].in_bucket)
            return list(found_by(resolution, whole[0]))
        if references:
            raise BlockedError(BlockReason.MALFORMED_JSON)
        if isinstance(value, str) and not is_ignored and self._may_refer(value, ()):
            raise BlockedError(BlockReason.UNCOVERED)
        return []

    def _may_refer(self, text: str, prefixes: tuple[str, ...]) -> bool:
        if not self._may_name(text):
            return False
        return (
            text in self._bucket_names
            or text.startswith(prefixes)
            or _URL.match(text) is not None
            or self.is_ours(text)
        )

    def _may_name(self, text: str) -> bool:
        """Whether `text` is a bucket, or has what a host or a path has: most settings do not."""
        return _MAY_NAME.search(text) is not None or text in self._bucket_names


def _meant(found: Found, existing: frozenset[ObjectRef]) -> Sequence[ObjectRef]:
    """Which of several candidates a reference means: those that are there, else the likeliest."""
    if len(found.candidates) == 1:
        return found.candidates
    there = [ref for ref in found.candidates if ref in existing]
    return there or found.candidates[:1]


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice: the value that loses would be forgotten unread."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_each_name_once)
"""Made once: `json.loads` makes one for every value."""
