"""Comparing with many values costs one parameter, however many there are."""

import pytest
from sqlalchemy import Select, select
from sqlalchemy.dialects import postgresql

from lethe_eraser.storage.arrays import BigIntegers, one_of
from lethe_eraser.storage.tables import counted_object, job


def compiled(statement: Select[object]) -> tuple[str, int]:
    """Give the text and how many parameters it has."""
    found = statement.compile(
        dialect=postgresql.psycopg.dialect(),  # type: ignore[no-untyped-call]  # SQLAlchemy's own
        compile_kwargs={"render_postcompile": True},
    )
    return str(found), len(found.params)


@pytest.mark.parametrize("count", [0, 1, 256])
def test_the_statement_does_not_grow_with_the_values(count: int) -> None:
    one, _ = compiled(select(job.c.job_id).where(one_of(job.c.bucket, [7])))
    many, parameters = compiled(select(job.c.job_id).where(one_of(job.c.bucket, range(count))))
    assert many == one
    assert parameters == 1


def test_what_is_none_of_them_is_asked_for_as_a_whole() -> None:
    text, _ = compiled(select(job.c.job_id).where(~one_of(job.c.bucket, [1, 2])))
    assert "NOT (" in text
    assert "!=" not in text


def test_whole_numbers_are_written_as_postgresql_reads_them() -> None:
    write = BigIntegers().bind_processor(postgresql.psycopg.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    assert write is not None
    assert [write([]), write([1, -(2**63), 2**63 - 1]), write(None)] == [
        "{}",
        "{1,-9223372036854775808,9223372036854775807}",
        None,
    ]
    with pytest.raises(TypeError):
        write(["1,2"])  # type: ignore[list-item]  # what must not be taken


def test_digests_go_as_one_text() -> None:
    text, _ = compiled(
        select(counted_object.c.job_id).where(one_of(counted_object.c.digest, [1, 2]))
    )
    assert "ANY (CAST(" in text
    assert "AS BIGINT[])" in text
