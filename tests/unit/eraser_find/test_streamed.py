"""JSON read as it comes: the same value as read at once, and bounded whatever comes."""

import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_eraser.references import streamed
from lethe_eraser.references.streamed import UnreadableError, read_streamed

MEGABYTE: Final = 1_048_576


def nothing(_: str) -> bool:
    return False


async def chunked(text: bytes, size: int = 64) -> AsyncIterator[bytes]:
    for begin in range(0, len(text), size):
        yield text[begin : begin + size]


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


@given(value=VALUES, size=st.integers(1, 50), mark=st.sampled_from([b"", b"\xef\xbb\xbf"]))
async def test_a_text_in_any_pieces_is_the_value_it_is_at_once(
    value: Any, size: int, mark: bytes
) -> None:
    text = json.dumps(value, ensure_ascii=size % 2 == 0).encode()
    assert await read_streamed(chunked(mark + text, size), nothing) == value


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"{", b"[1, ]", b"nul", b"{} {}", b"not json", b"\xff\xfe{", b'["\xff"]',
        b'{"a": 1, "a": 2}', b"[" * 200_000, b"[" * 101 + b"]" * 101, b"[" + b"1" * 9000 + b"]x",
        b'{"a":' * 200 + b"1" + b"}" * 200,
    ],
)  # fmt: skip
async def test_what_is_no_json_or_too_deep_is_refused_whole(text: bytes) -> None:
    with pytest.raises(UnreadableError):
        await read_streamed(chunked(text, 4096), nothing)


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize(
    "text", [rb'["a\ud800.png"]', rb'["\ud83d"]', rb'["\udc00"]', rb'{"\ud800\ud800": 1}']
)
async def test_half_a_character_is_not_taken_for_another(text: bytes, size: int) -> None:
    """It would name another object, or two names would be one."""
    with pytest.raises(UnreadableError):
        await read_streamed(chunked(text, size), nothing)


PARTS: Final = [r"\\", "\\n", r"\ud83d\ude00", "ud83d", r"\u00e9", "a", "x" * 12]


@given(parts=st.lists(st.sampled_from(PARTS), max_size=20), size=st.integers(1, 40))
async def test_a_backslash_that_is_text_begins_no_character(parts: list[str], size: int) -> None:
    text = f'["{"".join(parts)}"]'
    assert await read_streamed(chunked(text.encode(), size), nothing) == json.loads(text)


@given(parts=st.lists(st.sampled_from(PARTS), max_size=20), size=st.integers(1, 40))
async def test_half_a_character_is_seen_behind_any_backslashes(parts: list[str], size: int) -> None:
    text = f'["{"".join(parts)}\\ud83d"]'
    with pytest.raises(UnreadableError):
        await read_streamed(chunked(text.encode(), size), nothing)


async def test_a_number_of_thousands_of_digits_harms_nobody() -> None:
    try:
        value = await read_streamed(chunked(b"[" + b"1" * 100_000 + b"]"), nothing)
    except UnreadableError:
        return
    assert value == [float("inf")]


@pytest.mark.parametrize(
    ("piece", "count"),
    [
        (b"1,", streamed.MOST_VALUES + 1),
        (b'"' + b"k" * 1000 + b'",', streamed.MOST_CHARACTERS // 1000 + 1),
        (b"k" * 65_536, streamed.LONGEST_VALUE // 65_536 + 2),
    ],
    ids=["values", "characters", "one value"],
)
async def test_too_much_of_anything_is_refused_before_it_is_held(piece: bytes, count: int) -> None:
    async def much() -> AsyncIterator[bytes]:
        yield b'["' if piece.startswith(b"k") else b"["
        for _ in range(count):
            yield piece

    with pytest.raises(UnreadableError):
        await read_streamed(much(), nothing)


def pages() -> Iterator[bytes]:
    """A manifest of 50 MB: a thousand keys, and all the text that was on the pages."""
    yield b'{"fileKeyList": ['
    yield b",".join(b'"extractions/7/%d.png"' % number for number in range(1000))
    yield b'], "pages": ['
    text = b"x" * 65_000
    for number in range(50 * MEGABYTE // 65_000):
        yield (b'"' if number == 0 else b',"') + text + b'"'
    yield b"]}"


async def test_a_manifest_of_fifty_megabytes_is_read_in_little_memory() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in pages():
            yield chunk

    tracemalloc.start()
    try:
        value: Any = await read_streamed(chunks(), nothing)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert value["fileKeyList"] == [f"extractions/7/{number}.png" for number in range(1000)]
    assert most < 8 * MEGABYTE


async def test_a_long_string_is_cut_unless_it_refers_to_something() -> None:
    refers, plain = "https://x/" + "a" * 5000, "b" * 5000
    text = json.dumps({"long": refers, "text": plain}).encode()
    value: Any = await read_streamed(chunked(text), lambda one: one.startswith("https:"))
    assert value["long"] == refers
    # Longer than a key can be: where a rule takes it for one, it is none.
    assert value["text"] == "b" * streamed.CUT_AT
    assert streamed.CUT_AT > 1024
