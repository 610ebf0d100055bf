import pytest

from lethe_runtime import tracing

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_valid_header_is_carried() -> None:
    assert tracing.carry_or_begin(VALID) == VALID


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        VALID.upper(),
        VALID + "\n",
        "01" + VALID[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_anything_else_begins_a_trace(header: str | None) -> None:
    begun = tracing.carry_or_begin(header)

    assert tracing.parse(begun) == begun
    assert begun != header
