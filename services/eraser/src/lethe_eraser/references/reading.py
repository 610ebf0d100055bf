"""One JSON value being read by the rules of its column: what they find in it, and what is left."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog.model import Ignored, Ownership, ReferenceRule, Rules
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


@dataclass(frozen=True, slots=True)
class Found:
    """One reference of a row: the object it names (or may name), and whose that may be."""

    candidates: tuple[ObjectRef, ...]
    ownership: Ownership


class BlockedError(Exception):
    """The row is blocked, for this reason; callers outside this package see the reason alone."""

    def __init__(self, reason: BlockReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Reading:
    """One JSON value being read; remembers which of its strings a rule claimed."""

    def __init__(self, resolver: Resolver, value: object, *, must_apply: bool) -> None:
        self._resolver = resolver
        self._value = value
        self._claimed: dict[int, set[str | int | None]] = {}
        self._ignored: set[int] = set()
        self._must_apply = must_apply
        self._applied = False

    def references(self, rules: Rules) -> list[Found]:
        """Give what the rules find.

        Raises:
            BlockedError: a reference cannot be read or resolved, or no rule that must apply does.
            JSONPathError: the value cannot be looked through.
        """
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
        if self._applied or may_name_nothing:
            return found
        if any(isinstance(rule, ReferenceRule) for rule in rules):
            raise BlockedError(BlockReason.MALFORMED_JSON)
        return found

    def unclaimed(self) -> list[str]:
        """Give every string, member names included, that no rule claimed."""
        texts: list[str] = []
        open_values: list[Any] = [] if id(self._value) in self._ignored else [self._value]
        while open_values:
            value = open_values.pop()
            if isinstance(value, dict):
                texts += value
                members: Iterable[tuple[str | int, Any]] = value.items()
            else:
                members = enumerate(value)
            claimed = self._claimed.get(id(value), ())
            for name, member in members:
                if isinstance(member, str):
                    if name not in claimed:
                        texts.append(member)
                elif isinstance(member, dict | list) and id(member) not in self._ignored:
                    open_values.append(member)
        return texts

    def _by_rule(self, rule: ReferenceRule) -> list[Found]:
        found: list[Found] = []
        if rule.at is None or not self._has_its_shape(rule):
            return found
        for hit in rule.at.find(self._value):
            self._applied = True
            if hit.obj is None:
                continue
            if rule.is_object:
                found += self._of_object(rule, hit.obj)
            else:
                self._claim(hit)
                url = _string(hit.obj) or ""
                found += found_by(self._resolver.resolve_url(url, in_bucket=rule.in_bucket), rule)
        return found

    def _has_its_shape(self, rule: ReferenceRule) -> bool:
        """Whether the rule is of this value's shape; inside it, a wrong shape is malformed."""
        if rule.is_root:
            return not rule.is_object or isinstance(self._value, dict)
        if rule.list_at is None:
            return True
        lists = rule.list_at.find(self._value)
        for hit in lists:
            if isinstance(hit.obj, list) or hit.obj is None:
                self._applied = True
            elif hit.part is None:
                return False
            else:
                raise BlockedError(BlockReason.MALFORMED_JSON)
        return bool(lists)

    def _of_object(self, rule: ReferenceRule, node: object) -> list[Found]:
        if not isinstance(node, dict):
            raise BlockedError(BlockReason.MALFORMED_JSON)
        self._claimed.setdefault(id(node), set()).update(rule.urls, (rule.key, rule.bucket))
        key, bucket = _string(node.get(rule.key)), _string(node.get(rule.bucket))
        urls = [url for name in rule.urls if name in node and (url := _string(node[name]))]
        if not urls and key is None and bucket is None:
            return []
        found: list[Found] = []
        for url in urls or (None,):
            resolution = self._resolver.resolve(
                url=url, key=key, bucket=bucket, in_bucket=rule.in_bucket
            )
            found += found_by(resolution, rule)
        return found

    def _claim(self, hit: Hit) -> None:
        if hit.part is not None:
            self._claimed.setdefault(id(hit.parent), set()).add(hit.part)


def found_by(resolution: Resolution, rule: ReferenceRule) -> Sequence[Found]:
    """Give what a reference names, if anything.

    Raises:
        BlockedError: it is not resolved, or its parts contradict each other.
    """
    match resolution:
        case Resolved(ref):
            return [Found(_whole((ref,), rule), rule.ownership)]
        case Ambiguous(candidates):
            return [Found(_whole(candidates, rule), rule.ownership)]
        case Unresolved():
            raise BlockedError(BlockReason.UNRESOLVED_REFERENCE)
        case Conflict():
            raise BlockedError(BlockReason.REFERENCE_CONFLICT)
        case Nothing():
            return ()


def _whole(candidates: tuple[ObjectRef, ...], rule: ReferenceRule) -> tuple[ObjectRef, ...]:
    """Mean the object and not the one version that a presigned URL happens to carry."""
    if rule.only_version or all(ref.version is None for ref in candidates):
        return candidates
    return tuple(dict.fromkeys(ObjectRef(ref.bucket, ref.key) for ref in candidates))


def _string(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BlockedError(BlockReason.MALFORMED_JSON)
