from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_reporting.api import cursors
from lethe_runtime.problems import Problem


@given(st.uuids())
def test_a_request_cursor_is_read_as_it_was_written(request_id: UUID) -> None:
    assert cursors.request_of(cursors.after_request(request_id)) == request_id


@given(st.integers(0, 2**63 - 1))
def test_a_dead_letter_cursor_is_read_as_it_was_written(letter_id: int) -> None:
    assert cursors.dead_letter_of(cursors.after_dead_letter(letter_id)) == letter_id


@given(st.text(max_size=64) | st.binary(max_size=40).map(lambda raw: raw.hex()))
def test_any_other_word_is_a_problem_that_does_not_quote_it(word: str) -> None:
    for read in (cursors.request_of, cursors.dead_letter_of):
        try:
            read(word)
        except Problem as refused:
            problem = refused
        else:
            continue
        assert problem.status == 422
        assert problem.errors[0].pointer == "/query/cursor"


def test_a_cursor_beyond_any_id_is_refused() -> None:
    with pytest.raises(Problem):
        cursors.dead_letter_of(cursors.after_dead_letter(2**63))


def test_a_cursor_of_one_list_is_refused_by_the_other() -> None:
    with pytest.raises(Problem):
        cursors.request_of(cursors.after_dead_letter(7))
    with pytest.raises(Problem):
        cursors.dead_letter_of(cursors.after_request(UUID(int=7)))
