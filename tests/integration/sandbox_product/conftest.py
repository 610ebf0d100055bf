"""The sample product, seeded at its smallest scale."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lethe_sandbox.audit import Report, audit
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.stack import Addresses, S3Address
from tests.support.databases import EMPTY, create, drop


@dataclass(frozen=True)
class Sample:
    """One seeded database and the buckets beside it."""

    url: str
    s3: S3Address
    truth: GroundTruth
    file: Path

    def audit(self) -> Report:
        return audit(self.url, self.s3, self.truth)


class Databases:
    """Databases of one module's own, gone when it ends."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._names: list[str] = []

    def create(self, template: str = EMPTY) -> str:
        """Create a database, empty or as a copy of another; gives its name."""
        name = create(self._addresses, template)
        self._names.append(name)
        return name

    def drop(self, name: str) -> None:
        drop(self._addresses, name)
        self._names.remove(name)

    def drop_all(self) -> None:
        for name in tuple(self._names):
            self.drop(name)

    def url(self, name: str) -> str:
        return self._addresses.database_url(name, driver="")


@pytest.fixture(scope="module")
def databases(stack: Addresses) -> Iterator[Databases]:
    made = Databases(stack)
    yield made
    made.drop_all()
