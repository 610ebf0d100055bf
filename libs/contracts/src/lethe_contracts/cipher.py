"""Authenticated encryption of what only the eraser may read, under a versioned key ring.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; the context is authenticated with it, so a
token moved to another person or batch does not open.
"""

import base64
import binascii
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lethe_contracts.errors import KeyRingError, UndecryptableError
from lethe_contracts.keyring import KeyRing

_NONCE_BYTES: Final = 12


class Cipher:
    """Encrypts with the ring's current key and decrypts with any of them.

    A token is `<key version>.<base64url of nonce, ciphertext and tag>`.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def encrypt(self, plaintext: bytes, *, context: str) -> str:
        """Return a token that opens only with the same `context`."""
        version = self._ring.current
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(self._ring.key(version)).encrypt(nonce, plaintext, context.encode())
        return f"{version}.{base64.urlsafe_b64encode(nonce + sealed).decode().rstrip('=')}"

    def decrypt(self, token: str, *, context: str) -> bytes:
        """Open `token`.

        Raises:
            UndecryptableError: another key or context, or not a token.
        """
        version, _, encoded = token.partition(".")
        try:
            if not (version.isascii() and version.isdigit()):
                raise UndecryptableError("the token names no key version")
            key = self._ring.key(int(version))
            padded = encoded + "=" * (-len(encoded) % 4)
            blob = base64.b64decode(padded, altchars=b"-_", validate=True)
            return AESGCM(key).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], context.encode())
        except KeyRingError:
            raise UndecryptableError("the ring does not have the token's key") from None
        except (InvalidTag, binascii.Error, ValueError):
            raise UndecryptableError("the token does not open here") from None
