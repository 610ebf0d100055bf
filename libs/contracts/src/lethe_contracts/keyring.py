"""A versioned ring of secret keys: the newest writes, all of them read."""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from lethe_contracts.errors import KeyRingError

KEY_BYTES: Final = 32
_VERSION: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys of 32 bytes by version, versions from 1 up.

    Raises:
        KeyRingError: no key, a version below 1, or a key of another length.
    """

    keys: Mapping[int, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise KeyRingError("a key ring needs at least one key")
        for version, key in self.keys.items():
            if version < 1:
                raise KeyRingError("key versions count from 1")
            if len(key) != KEY_BYTES:
                raise KeyRingError(f"key {version} has {len(key)} bytes instead of {KEY_BYTES}")
        object.__setattr__(self, "keys", MappingProxyType(dict(self.keys)))

    @property
    def current(self) -> int:
        """The highest version: the one that writes."""
        return max(self.keys)

    @property
    def versions(self) -> tuple[int, ...]:
        """Every version, the current one first."""
        return tuple(sorted(self.keys, reverse=True))

    def key(self, version: int) -> bytes:
        """Return the key of `version`.

        Raises:
            KeyRingError: the ring does not have it.
        """
        try:
            return self.keys[version]
        except KeyError:
            raise KeyRingError(f"the ring has no key {version}") from None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1:<base64url of 32 bytes>,2:...`, as it stands in a setting.

        Raises:
            KeyRingError: it is not that; the message names the place and never a key.
        """
        keys: dict[int, bytes] = {}
        for place, part in enumerate(text.split(","), start=1):
            version, separator, encoded = part.strip().partition(":")
            if not separator or not _VERSION.fullmatch(version):
                raise KeyRingError(f"entry {place} is not <version>:<base64url key>")
            if int(version) in keys:
                raise KeyRingError(f"key {int(version)} is there twice")
            keys[int(version)] = _decoded(encoded, place)
        return cls(keys)

    @classmethod
    def generate(cls) -> Self:
        """Make a ring of one new random key."""
        return cls({1: secrets.token_bytes(KEY_BYTES)})

    def render(self) -> str:
        """Write the ring as `parse` reads it. It holds the keys: for secret stores only."""
        return ",".join(
            f"{version}:{base64.urlsafe_b64encode(self.keys[version]).decode().rstrip('=')}"
            for version in sorted(self.keys)
        )


def _decoded(encoded: str, place: int) -> bytes:
    try:
        padded = encoded + "=" * (-len(encoded) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise KeyRingError(f"the key of entry {place} is not base64url") from None
