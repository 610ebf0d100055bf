from collections.abc import Iterator

import pytest

from tests.support.logs import restored


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    with restored():
        yield
