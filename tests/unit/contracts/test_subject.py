import hashlib
import hmac
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_contracts.errors import KeyRingError, SubjectError
from lethe_contracts.keyring import KeyRing
from lethe_contracts.subject import SubjectRefs, normalise

RING = KeyRing({1: b"a" * 32, 2: b"b" * 32})
printable = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=100)


@given(printable.filter(lambda text: bool(text.strip())))
def test_normalising_twice_is_normalising_once(subject: str) -> None:
    assert normalise(normalise(subject)) == normalise(subject)


@given(st.text(st.characters()))
def test_any_text_is_a_subject_or_a_typed_error(text: str) -> None:
    try:
        normal = normalise(text)
    except SubjectError:
        return
    assert 1 <= len(normal) <= 512
    assert unicodedata.is_normalized("NFC", normal)
    assert normal == normal.strip()
    SubjectRefs(RING).of(text)


@pytest.mark.parametrize(
    "text", ["", "   ", "x" * 513, "a\x00b", "a\nb", "\ud800", "\u3000"], ids=ascii
)
def test_what_cannot_be_an_account_id_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(SubjectError) as refused:
        normalise(text)
    assert len(str(refused.value)) < 60
    assert isinstance(refused.value, ValueError)


def test_composed_and_decomposed_spellings_are_one_person_and_case_is_kept() -> None:
    refs = SubjectRefs(RING)
    assert refs.of("한글") == refs.of(unicodedata.normalize("NFD", "한글"))
    assert refs.of(" acct-1\u00a0") == refs.of("acct-1")
    assert refs.of("Acct-1") != refs.of("acct-1")


def test_a_reference_is_the_key_version_and_an_hmac() -> None:
    expected = hmac.new(b"b" * 32, b"acct-000017", hashlib.sha256).hexdigest()
    assert SubjectRefs(RING).of("acct-000017") == f"2.{expected}"


def test_every_key_has_a_reference_the_current_one_first() -> None:
    both = SubjectRefs(RING).all_of("acct-1")
    assert [reference.partition(".")[0] for reference in both] == ["2", "1"]
    assert both[0] == SubjectRefs(RING).of("acct-1")
    assert both[1] == SubjectRefs(KeyRing({1: b"a" * 32})).of("acct-1")


def test_an_older_key_may_stay_current_while_a_new_one_is_made_known() -> None:
    refs = SubjectRefs(RING, current=1)
    assert refs.of("acct-1") == SubjectRefs(KeyRing({1: b"a" * 32})).of("acct-1")
    assert refs.all_of("acct-1") == list(reversed(SubjectRefs(RING).all_of("acct-1")))
    with pytest.raises(KeyRingError):
        SubjectRefs(RING, current=3)
