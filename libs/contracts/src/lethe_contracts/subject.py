"""The subject, and the reference by which everybody but intake knows it."""

import hashlib
import hmac
import unicodedata
from typing import Final

from lethe_contracts.errors import SubjectError
from lethe_contracts.keyring import KeyRing

LONGEST: Final = 512
"""Characters of the longest subject taken."""


def normalise(subject: str) -> str:
    """Bring an account id to the one form that is hashed and sent: NFC, no space around, case kept.

    Raises:
        SubjectError: it is empty, longer than `LONGEST`, or holds a control character.
    """
    normal = unicodedata.normalize("NFC", subject).strip()
    if not normal:
        raise SubjectError("the subject is empty")
    if len(normal) > LONGEST:
        raise SubjectError(f"the subject is longer than {LONGEST} characters")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in normal):
        raise SubjectError("the subject holds a control character")
    return normal


class SubjectRefs:
    """Makes subject references: `<key version>.<hex of HMAC-SHA-256(key, normalised subject)>`.

    Args:
        ring: the keys.
        current: the version that new references are made under; the ring's highest, if None.

    Raises:
        KeyRingError: the ring does not have `current`.
    """

    def __init__(self, ring: KeyRing, current: int | None = None) -> None:
        self._ring = ring
        self._current = ring.current if current is None else current
        ring.key(self._current)

    def of(self, subject: str) -> str:
        """Return the reference under the current key; raises SubjectError."""
        return self._under(self._current, normalise(subject))

    def all_of(self, subject: str) -> list[str]:
        """Return the references under every key, the current one first; raises SubjectError."""
        normal = normalise(subject)
        older = (version for version in self._ring.versions if version != self._current)
        return [self._under(version, normal) for version in (self._current, *older)]

    def _under(self, version: int, normal: str) -> str:
        digest = hmac.new(self._ring.key(version), normal.encode(), hashlib.sha256).hexdigest()
        return f"{version}.{digest}"
