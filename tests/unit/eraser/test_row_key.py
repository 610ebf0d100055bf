"""A primary key as one text: what tells a client row that the scan saw from one it did not."""

from hypothesis import example, given
from hypothesis import strategies as st

from lethe_eraser.storage.progress import row_key

KEYS = st.lists(st.tuples(st.text("ab/\\"), st.text("ab/\\")), min_size=2, max_size=2, unique=True)


@given(KEYS)
@example([("a/b", "c"), ("a", "b/c")])
@example([("a\\", "/b"), ("a", "\\/b")])
@example([("a\\", "b"), ("a\\/b", "")])
@example([("a\\", "b/c"), ("a/b\\", "c")])
def test_no_two_keys_of_a_table_are_one_text(keys: list[tuple[str, str]]) -> None:
    first, second = keys
    assert row_key(first) != row_key(second)


def test_a_key_of_one_column_is_written_as_it_is() -> None:
    assert row_key((7,)) == "7"
    assert row_key(("a/b\\",)) == "a/b\\"
