import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_contracts.cipher import Cipher
from lethe_contracts.errors import UndecryptableError
from lethe_contracts.keyring import KeyRing

ALPHABET = string.ascii_letters + string.digits + "-_"
OLD = KeyRing({1: b"a" * 32})
RING = KeyRing({1: b"a" * 32, 2: b"b" * 32})


@given(st.binary(max_size=200), st.text(st.characters(codec="utf-8"), max_size=80))
def test_what_is_encrypted_opens_again(plaintext: bytes, context: str) -> None:
    cipher = Cipher(RING)
    assert cipher.decrypt(cipher.encrypt(plaintext, context=context), context=context) == plaintext


@given(st.text(), st.text())
def test_any_text_is_a_token_or_a_typed_error(token: str, context: str) -> None:
    with pytest.raises(UndecryptableError):
        Cipher(RING).decrypt(token, context=context)


@given(st.binary(max_size=60))
def test_any_bytes_under_a_known_version_are_a_typed_error(blob: bytes) -> None:
    for encoded in (blob.hex(), blob.decode("latin-1")):
        with pytest.raises(UndecryptableError):
            Cipher(RING).decrypt(f"2.{encoded}", context="x")


def test_a_token_is_bound_to_its_context() -> None:
    token = Cipher(RING).encrypt(b"acct-1", context="2.abc")
    with pytest.raises(UndecryptableError) as refused:
        Cipher(RING).decrypt(token, context="2.abd")
    assert refused.value.reason == "undecryptable_subject"


# The last character may carry bits that belong to no byte, so it is left as it is.
@given(st.integers(0, 50), st.integers(1, 63))
def test_a_token_with_one_character_changed_does_not_open(place: int, by: int) -> None:
    token = Cipher(RING).encrypt(b"acct-000017", context="c")
    head, _, body = token.partition(".")
    assert len(body) == 52
    other = ALPHABET[(ALPHABET.index(body[place]) + by) % len(ALPHABET)]
    with pytest.raises(UndecryptableError):
        Cipher(RING).decrypt(f"{head}.{body[:place]}{other}{body[place + 1 :]}", context="c")


def test_an_old_token_opens_under_a_newer_ring_and_a_new_one_not_under_the_old() -> None:
    old = Cipher(OLD).encrypt(b"x", context="c")
    assert old.startswith("1.")
    assert Cipher(RING).decrypt(old, context="c") == b"x"
    new = Cipher(RING).encrypt(b"x", context="c")
    assert new.startswith("2.")
    with pytest.raises(UndecryptableError):
        Cipher(OLD).decrypt(new, context="c")


def test_no_two_tokens_are_alike() -> None:
    assert len({Cipher(RING).encrypt(b"x", context="c") for _ in range(50)}) == 50
