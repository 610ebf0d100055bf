"""What the catalog does to each column of a request type."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lethe_eraser.catalog import (
    ActiveAccount,
    Feature,
    Ignored,
    Mask,
    ProductTable,
    ReferenceRule,
    Rules,
)
from lethe_eraser.storage.product_schema import TableColumns

UNCLAIMED = "nobody claims it: a row that holds anything here is left, `blocked: uncovered`"


@dataclass(frozen=True, slots=True)
class ColumnFate:
    """What happens to one column."""

    table: str
    column: str
    fate: str
    objects: tuple[str, ...] = ()
    """What becomes of the objects it names, one line per rule."""

    def document(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


def explain(
    feature: Feature, live: Mapping[tuple[str, str], TableColumns] | None
) -> tuple[ColumnFate, ...]:
    """Say what happens to each column; with `live`, also to those that nobody claims."""
    return tuple(fate for table in feature.tables for fate in _columns(table, live))


@dataclass(frozen=True, slots=True)
class SetFate:
    """What becomes of objects that no column names: the handler reads of them somewhere else."""

    option: str
    reference_set: str
    objects: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


def explain_options(feature: Feature, sets: Mapping[str, Rules]) -> tuple[SetFate, ...]:
    """Say what happens by the reference sets that the options of the handler name."""
    return tuple(
        SetFate(name, value, tuple(_objects(sets[value])))
        for name, value in feature.options.items()
        if isinstance(value, str) and value in sets
    )


def account_rule(account: ActiveAccount | None) -> str | None:
    """Say in which state of their account nobody is erased; None if it is not asked for."""
    if account is None:
        return None
    active = " or ".join(
        f"{column} is {' or '.join(values)}" for column, values in sorted(account.active.items())
    )
    return (
        f"nobody is erased while {account.table} says that {active}, or that {account.opened_at} is"
        " after their request"
    )


def _columns(
    table: ProductTable, live: Mapping[tuple[str, str], TableColumns] | None
) -> Iterator[ColumnFate]:
    there = set() if live is None else set(live.get((table.table.schema, table.table.name), {}))
    for column in sorted(table.columns | there):
        objects = tuple(_objects(table.references.get(column, ())))
        yield ColumnFate(str(table.table), column, _fate(table, column), objects)


def _fate(table: ProductTable, column: str) -> str:
    if column in table.masks:
        return f"masked: {_value(table.masks[column])}"
    if column in {table.primary_key, table.request_id}:
        return "kept: finds the row"
    if column in table.unfinished:
        return f"kept: unfinished while {' or '.join(table.unfinished[column])}"
    return "kept" if column in table.columns else UNCLAIMED


def _value(mask: Mask) -> str:
    return "NULL" if mask.text is None else repr(mask.text)


def _objects(rules: Rules) -> Iterator[str]:
    for rule in rules:
        if isinstance(rule, Ignored):
            yield f"{rule.at}: names no object of ours"
        else:
            yield f"{_place(rule)}: {_owner(rule)}{', one version' if rule.only_version else ''}"


def _place(rule: ReferenceRule) -> str:
    place = "the column's text" if rule.at is None else str(rule.at)
    members = ", ".join((*rule.urls, *(m for m in (rule.key, rule.bucket) if m)))
    within = f" ({members})" if members else ""
    return f"{place}{within}{f' in {rule.in_bucket}' if rule.in_bucket else ''}"


def _owner(rule: ReferenceRule) -> str:
    if rule.ownership.if_unreferenced:
        return "deleted with the last reference to it"
    if rule.ownership.under is None:
        return "deleted, unless shared"
    return f"deleted below {rule.ownership.under}, unless shared; else kept"
