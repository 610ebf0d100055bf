"""What an audit says: per feature what was seen to be right, and every finding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lethe_sandbox.audit.findings import Finding

_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class FeatureResult:
    """What was seen to be right for one request type."""

    type: str
    rows_masked: int
    """Feature, task and client rows."""
    objects_deleted: int
    kept_shared: int
    """Shared objects that masked rows named, and that are still there."""
    kept_foreign: int
    """Other people's objects that masked rows named, and that are still there."""
    blocked: Mapping[str, int]
    """Rows that stay, per reason."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit."""

    findings: tuple[Finding, ...]
    features: tuple[FeatureResult, ...]
    persons: int
    """Persons whose erasure was asked for."""
    untouched_persons: int
    rows: int
    """Rows read and compared."""
    objects: int
    """Objects compared."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; having had nothing to look at is a finding, too."""
        return not self.findings

    def __rich__(self) -> RenderableType:
        """Show the table, the findings and the verdict."""
        parts: list[RenderableType] = [self._table()]
        parts.extend(f"[red]x[/] {escape(str(one))}" for one in self.findings[:_SHOWN])
        if len(self.findings) > _SHOWN:
            kinds = Counter(type(one).__name__ for one in self.findings)
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            parts.append(f"[red]...[/] {len(self.findings)} findings in all: {listed}")
        parts.append(self._verdict())
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(title="Audit: what the database and S3 show", title_justify="left")
        table.add_column("feature", no_wrap=True)
        for name in ("rows masked", "objects deleted", "kept: shared", "kept: another's"):
            table.add_column(name, justify="right")
        table.add_column("blocked, and why")
        for one in self.features:
            table.add_row(one.type, *_numbers(one), _reasons(one.blocked))
        total = FeatureResult(
            "total",
            sum(one.rows_masked for one in self.features),
            sum(one.objects_deleted for one in self.features),
            sum(one.kept_shared for one in self.features),
            sum(one.kept_foreign for one in self.features),
            sum((Counter(one.blocked) for one in self.features), Counter()),
        )
        table.add_section()
        table.add_row(total.type, *_numbers(total), _reasons(total.blocked), style="bold")
        return table

    def _verdict(self) -> Text:
        looked = (
            f"{self.rows:,} rows and {self.objects:,} objects compared,"
            f" {self.persons} persons erased, {self.untouched_persons} to be left alone"
        )
        if self.ok:
            return Text(f"Audit passed: {looked}.", style="bold green")
        return Text(f"Audit failed with {len(self.findings)} findings: {looked}.", style="bold red")


def _numbers(one: FeatureResult) -> list[str]:
    numbers = (one.rows_masked, one.objects_deleted, one.kept_shared, one.kept_foreign)
    return [f"{number:,}" for number in numbers]


def _reasons(blocked: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} x {count}" for reason, count in sorted(blocked.items()))
