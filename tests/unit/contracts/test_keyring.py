import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_contracts.errors import KeyRingError
from lethe_contracts.keyring import KeyRing

rings = st.dictionaries(
    st.integers(1, 10**9 - 1), st.binary(min_size=32, max_size=32), min_size=1, max_size=4
)


@given(rings)
def test_a_ring_survives_being_written_and_read(keys: dict[int, bytes]) -> None:
    ring = KeyRing.parse(KeyRing(keys).render())
    assert dict(ring.keys) == keys
    assert ring.current == max(keys)
    assert ring.versions == tuple(sorted(keys, reverse=True))


@given(st.text())
def test_any_text_is_a_ring_or_a_typed_error(text: str) -> None:
    with contextlib.suppress(KeyRingError):
        KeyRing.parse(text)


def test_a_generated_ring_has_one_key_of_its_own() -> None:
    one, other = KeyRing.generate(), KeyRing.generate()
    assert one.versions == (1,)
    assert one.key(1) != other.key(1)


KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "entry 1 is not"),
        (KEY, "entry 1 is not"),
        (f"1:{KEY},two:{KEY}", "entry 2 is not"),
        (f"1:{KEY},1:{KEY}", "key 1 is there twice"),
        (f"0:{KEY}", "count from 1"),
        (f"1:{KEY[:20]}", "instead of 32"),
        (f"1:{KEY[:-2]}!!", "entry 1 is not base64url"),
        (f"{'9' * 5000}:{KEY}", "entry 1 is not"),
    ],
)
def test_an_error_says_what_is_wrong_and_never_the_key(text: str, says: str) -> None:
    with pytest.raises(KeyRingError, match=says) as refused:
        KeyRing.parse(text)
    assert KEY[:8] not in str(refused.value)


def test_padding_and_space_between_entries_do_not_matter() -> None:
    assert KeyRing.parse(f"1:{KEY.rstrip('=')}, 2:{KEY}").versions == (2, 1)


def test_a_missing_version_is_a_typed_error() -> None:
    with pytest.raises(KeyRingError, match="no key 7"):
        KeyRing.generate().key(7)


def test_a_ring_never_shows_its_keys() -> None:
    ring = KeyRing({1: b"k" * 32})
    assert "kkk" not in repr(ring)


def test_a_ring_does_not_change_with_the_mapping_it_was_made_of() -> None:
    keys = {1: bytes(32)}
    ring = KeyRing(keys)
    keys[2] = bytes(32)
    assert ring.current == 1
