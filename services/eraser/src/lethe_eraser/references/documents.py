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
    Ownership,
    ProductTable,
    ReferenceRule,
    Rules,
    SharedObjects,
)
from lethe_eraser.catalog.paths import Hit
from lethe_eraser.domain import ObjectRef
from lethe_eraser.references.urls import (
    Ambiguous,
    Conflict,
    Nothing,
    Resolution,
    Resolved,
    Resolver,
    Unresolved,
)

_EMPTY: Final[tuple[object, ...]] = (None, "", {}, [])
_URL: Final = re.compile(
    r"\s*(?:[a-z][a-z0-9+.-]*:)?//[^/\s]|.*\barn:aws[a-z-]*:s3:", re.IGNORECASE
)
_AWS: Final = (r"\.amazonaws\.com", r"\.cloudfront\.net")


class _UnreadableError(Exception):
    """Inside this module: the row is left alone, for this reason."""

    def __init__(self, reason: BlockReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Found:
    """One reference of a row: the object it names (or may name), and whose that may be."""

    candidates: tuple[ObjectRef, ...]
    ownership: Ownership


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
        ours = "|".join((*_AWS, *(re.escape(host) for host in catalog.hosts)))
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
        except _UnreadableError as unreadable:
            return unreadable.reason

    def read_column(
        self, product: ProductTable, column: str, text: str | None, subject: str
    ) -> tuple[Found, ...] | BlockReason:
        """Read one reference column of a row; give what it names."""
        try:
            return tuple(self._column(product.references[column], text, subject))
        except _UnreadableError as unreadable:
            return unreadable.reason

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
        return self._ours.search(text) is not None

    def read_value(
        self, rules: Rules, value: object, subject: str
    ) -> tuple[Found, ...] | BlockReason:
        """Read a JSON value by `rules`, of which one must apply."""
        try:
            return tuple(self._value(rules, value, subject, may_be_empty=False))
        except _UnreadableError as unreadable:
            return unreadable.reason

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
            return _found(self._resolver.resolve_url(text, in_bucket=plain.in_bucket), plain)
        return self._json(rules, text, subject)

    def _json(self, rules: Rules, text: str, subject: str) -> list[Found]:
        try:
            value = json.loads(text, object_pairs_hook=_each_name_once)
        except (ValueError, RecursionError):
            raise _UnreadableError(BlockReason.MALFORMED_JSON) from None
        return self._value(rules, value, subject, may_be_empty=True)

    def _value(
        self, rules: Rules, value: object, subject: str, *, may_be_empty: bool
    ) -> list[Found]:
        if may_be_empty and value in _EMPTY:
            return []
        if not isinstance(value, dict | list):
            return self._scalar(rules, value)
        reading = _Reading(self._resolver, value, must_apply=not may_be_empty)
        try:
            found = reading.references(rules)
        except (JSONPathError, RecursionError):
            raise _UnreadableError(BlockReason.MALFORMED_JSON) from None
        prefixes = {r.ownership.prefix(subject) for r in rules if isinstance(r, ReferenceRule)}
        theirs = tuple(prefix for prefix in prefixes if prefix)
        if any(self._may_refer(text, theirs) for text in reading.unclaimed()):
            raise _UnreadableError(BlockReason.UNCOVERED)
        return found

    def _scalar(self, rules: Rules, value: object) -> list[Found]:
        # Not by its path: the JSONPath library would take a string for the text of a document.
        references = [rule for rule in rules if isinstance(rule, ReferenceRule)]
        whole = [rule for rule in references if rule.is_root and not rule.is_object]
        if isinstance(value, str) and whole:
            resolution = self._resolver.resolve_url(value, in_bucket=whole[0].in_bucket)
            return list(_found(resolution, whole[0]))
        if references:
            raise _UnreadableError(BlockReason.MALFORMED_JSON)
        if isinstance(value, str) and self._may_refer(value, ()):
            raise _UnreadableError(BlockReason.UNCOVERED)
        return []

    def _may_refer(self, text: str, prefixes: tuple[str, ...]) -> bool:
        if text in self._bucket_names:
            return True
        if "." not in text and "/" not in text and ":" not in text:
            # Neither a host nor a path: most settings end here.
            return False
        return (
            text.startswith(prefixes)
            or _URL.match(text) is not None
            or self._ours.search(text) is not None
        )


class _Reading:
    """One JSON value being read; remembers which of its strings a rule claimed."""

    def __init__(self, resolver: Resolver, value: object, *, must_apply: bool) -> None:
        self._resolver = resolver
        self._value = value
        self._claimed: set[tuple[int, str | int]] = set()
        self._ignored: set[int] = set()
        self._must_apply = must_apply
        self._applied = False

    def references(self, rules: Rules) -> list[Found]:
        found: list[Found] = []
        for rule in rules:
            if isinstance(rule, Ignored):
                for hit in rule.at.find(self._value):
                    self._claim(hit)
                    self._ignored.add(id(hit.obj))
            else:
                found += self._by_rule(rule)
        # An object that no rule speaks of may well name nothing; its URLs are looked for anyway.
        may_name_nothing = isinstance(self._value, dict) and not self._must_apply
        has_rules = any(isinstance(rule, ReferenceRule) for rule in rules)
        if has_rules and not self._applied and not may_name_nothing:
            raise _UnreadableError(BlockReason.MALFORMED_JSON)
        return found

    def unclaimed(self) -> Iterator[str]:
        """Give every string, member names included, that no rule claimed."""
        open_values: list[Any] = [self._value]
        while open_values:
            value = open_values.pop()
            if isinstance(value, dict):
                yield from value
                members: Iterable[tuple[str | int, Any]] = value.items()
            elif isinstance(value, list):
                members = enumerate(value)
            else:
                continue
            for name, member in members:
                if isinstance(member, str):
                    if (id(value), name) not in self._claimed:
                        yield member
                elif isinstance(member, dict | list) and id(member) not in self._ignored:
                    open_values.append(member)

    def _by_rule(self, rule: ReferenceRule) -> Iterator[Found]:
        if rule.at is None or not self._has_its_shape(rule):
            return
        for hit in rule.at.find(self._value):
            self._applied = True
            if hit.obj is None:
                continue
            if rule.is_object:
                yield from self._of_object(rule, hit.obj)
            else:
                self._claim(hit)
                yield from _found(
                    self._resolver.resolve_url(_string(hit.obj) or "", in_bucket=rule.in_bucket),
                    rule,
                )

    def _has_its_shape(self, rule: ReferenceRule) -> bool:
        """Whether the rule is of this value's shape; inside it, a wrong shape is malformed."""
        if rule.list_at is not None:
            for hit in rule.list_at.find(self._value):
                if isinstance(hit.obj, list) or hit.obj is None:
                    self._applied = True
                    continue
                if hit.part is None:
                    return False
                raise _UnreadableError(BlockReason.MALFORMED_JSON)
        return not (rule.is_root and rule.is_object and not isinstance(self._value, dict))

    def _of_object(self, rule: ReferenceRule, node: object) -> Iterator[Found]:
        if not isinstance(node, dict):
            raise _UnreadableError(BlockReason.MALFORMED_JSON)
        names = (*rule.urls, rule.key, rule.bucket)
        self._claimed.update((id(node), name) for name in names if name is not None)
        key, bucket = _string(node.get(rule.key)), _string(node.get(rule.bucket))
        urls: list[str | None] = [url for name in rule.urls if (url := _string(node.get(name)))]
        for url in urls or [None]:
            resolution = self._resolver.resolve(
                url=url, key=key, bucket=bucket, in_bucket=rule.in_bucket
            )
            yield from _found(resolution, rule)

    def _claim(self, hit: Hit) -> None:
        if hit.part is not None:
            self._claimed.add((id(hit.parent), hit.part))


def _meant(found: Found, existing: frozenset[ObjectRef]) -> Sequence[ObjectRef]:
    """Which of several candidates a reference means: those that are there, else the likeliest."""
    if len(found.candidates) == 1:
        return found.candidates
    there = [ref for ref in found.candidates if ref in existing]
    return there or found.candidates[:1]


def _found(resolution: Resolution, rule: ReferenceRule) -> Iterator[Found]:
    match resolution:
        case Resolved(ref):
            yield Found(_whole((ref,), rule), rule.ownership)
        case Ambiguous(candidates):
            yield Found(_whole(candidates, rule), rule.ownership)
        case Unresolved():
            raise _UnreadableError(BlockReason.UNRESOLVED_REFERENCE)
        case Conflict():
            raise _UnreadableError(BlockReason.REFERENCE_CONFLICT)
        case Nothing():
            return


def _whole(candidates: Iterable[ObjectRef], rule: ReferenceRule) -> tuple[ObjectRef, ...]:
    """Mean the object and not the one version that a presigned URL happens to carry."""
    if rule.only_version:
        return tuple(candidates)
    return tuple(dict.fromkeys(ObjectRef(ref.bucket, ref.key) for ref in candidates))


def _string(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _UnreadableError(BlockReason.MALFORMED_JSON)


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice: the value that loses would be forgotten unread."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value
