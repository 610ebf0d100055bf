import pytest

from lethe_runtime.errors import is_ours


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("lethe_eraser.catalog.model", True),
        ("lethe_outbox", True),
        ("lethe", False),
        ("lethex.errors", False),
        ("psycopg.lethe_errors", False),
    ],
)
def test_the_text_of_an_error_is_ours_if_a_member_wrote_it(module: str, *, expected: bool) -> None:
    made = type("MadeError", (Exception,), {"__module__": module})
    assert is_ours(made()) is expected
