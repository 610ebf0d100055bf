"""Readiness: what a service needs from others, and whether it has it now."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Status = Literal["unknown", "ok", "away"]


@dataclass(frozen=True, slots=True)
class Dependency:
    """How one dependency was found last; `since` is when that began."""

    status: Status
    since: datetime
    error_class: str | None = None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """What `/readyz` says."""

    ready: bool
    dependencies: Mapping[str, Dependency]


class Readiness:
    """The state of named dependencies; not ready until each required one was found well.

    Args:
        dependencies: names that must be well.
        optional: names that are reported only: the service works, slower, without them.
    """

    def __init__(self, dependencies: Iterable[str], *, optional: Iterable[str] = ()) -> None:
        now = datetime.now(UTC)
        self._dependencies = {name: Dependency("unknown", now) for name in dependencies}
        for name in optional:
            self._dependencies[name] = Dependency("unknown", now, required=False)

    def ok(self, name: str) -> None:
        """Note that `name` answers. A name that was not announced is a KeyError."""
        self.note(name, "ok")

    def away(self, name: str, error_class: str) -> None:
        """Note that `name` does not answer, with the class of the error (never its text)."""
        self.note(name, "away", error_class)

    def note(self, name: str, status: Status, error_class: str = "") -> None:
        """Note how `name` was found; with the name bound, a listener for consumers and relays."""
        before = self._dependencies[name]
        since = before.since if before.status == status else datetime.now(UTC)
        self._dependencies[name] = Dependency(status, since, error_class or None, before.required)

    def report(self) -> Report:
        """Say how everything stands now."""
        ready = all(one.status == "ok" for one in self._dependencies.values() if one.required)
        return Report(ready, dict(self._dependencies))
