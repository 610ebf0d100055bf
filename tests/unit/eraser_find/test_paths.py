"""A plain path finds what the JSONPath library finds, in its order."""

from typing import Any

import jsonpath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath import JSONPath

from lethe_eraser.catalog.paths import JsonPath

NAMES = st.sampled_from(["a", "b", "c", "a b", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3),
    max_leaves=12,
)
ROOTS = st.lists(VALUES, max_size=3) | st.dictionaries(NAMES, VALUES, max_size=3)


def compiled(written: str) -> JSONPath:
    path = jsonpath.compile(written)
    assert isinstance(path, JSONPath)
    return path


@pytest.mark.parametrize(
    ("written", "is_plain"),
    [
        ("$", True),
        ("$.a", True),
        ("$.a.b", True),
        ("$['a b']", True),
        ("$[*]", True),
        ("$.a[*]", True),
        ("$.a[*].b[*]", True),
        ("$[*][*]", True),
        ("$.a.*", True),
        ("$..a", False),
        ("$.a[0]", False),
        ("$.a[1:]", False),
        ("$['a','b']", False),
        ("$[?@.a]", False),
    ],
)
@given(value=ROOTS)
def test_it_finds_what_the_library_finds(written: str, is_plain: bool, value: Any) -> None:  # noqa: FBT001  # a parameter of the test
    path = compiled(written)
    mine = JsonPath(path)
    assert (mine._steps is not None) is is_plain
    expected = [
        (
            id(m.obj),
            None if m.parent is None else id(m.parent.obj),
            m.parts[-1] if m.parts else None,
        )
        for m in path.finditer(value)
    ]
    found = [
        (id(hit.obj), None if hit.part is None else id(hit.parent), hit.part)
        for hit in mine.find(value)
    ]
    assert found == expected
    assert str(mine) == str(path)
    assert mine.is_root is (written == "$")
