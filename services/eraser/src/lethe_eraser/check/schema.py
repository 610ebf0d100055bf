"""Hold the catalog to the schema of the live database."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import ActiveAccount, Catalog, CatalogError, Mask, TableName, did_you_mean
from lethe_eraser.check.fit import TEXT, misfits
from lethe_eraser.check.relations import no_tables
from lethe_eraser.storage.accounts import asked_by_index
from lethe_eraser.storage.look_ups import unproven
from lethe_eraser.storage.product_sample import breaks_check, holds_rows_of
from lethe_eraser.storage.product_schema import (
    NamedColumn,
    TableColumns,
    columns_named,
    constraints,
    describe,
    rejected_masks,
)
from lethe_eraser.storage.tables import SCHEMA

CHECKED_ROWS = 200
"""Rows of a table on which its CHECKs are tried with the masks."""

Claim = tuple[TableName, frozenset[str], Mapping[str, Mask]]


async def check_schema(connection: AsyncConnection, catalog: Catalog) -> tuple[str, ...]:
    """Hold the catalog to the live database.

    Returns:
        Columns (`schema.table.column`) of claimed tables that the catalog neither masks nor keeps.

    Raises:
        CatalogError: A claimed table or column is missing, a mask does not fit its column, a CHECK,
            a unique index or a foreign key would refuse it, the key of a client table does not tell
            its rows apart, or no index serves a look-up or the question for an active account.
    """
    claimed = _claims(catalog)
    live = await describe(connection, {(t.schema, t.name) for t, _, _ in claimed})
    not_ours = await no_tables(connection, {t for t, _, _ in claimed})
    problems: list[str] = list(not_ours.values())
    unclaimed: list[str] = []
    texts: list[tuple[str, str | None, str]] = []
    for table, columns, masks in claimed:
        found = live.get((table.schema, table.name))
        if table in not_ours:
            continue
        if found is None:
            problems.append(f"{table}: the catalog claims this table and the database has none")
            continue
        problems += _column_problems(table, columns, masks, found)
        unclaimed += [f"{table}.{name}" for name in sorted(set(found) - columns)]
        texts += [
            (f"{table}.{name}", mask.text, found[name].type_name)
            for name, mask in masks.items()
            if name in found
        ]
    problems += [
        f"{column}: its type {type_name} does not take the mask"
        f" {'null' if text is None else repr(text)}; write another"
        for column, text, type_name in await rejected_masks(connection, texts)
    ]
    if not problems:
        # Only what exists and takes its masks can be tried.
        problems += await misfits(connection, catalog, live)
        problems += await _refusals(connection, claimed, live)
        problems += [
            f"{look_up.at}: {why}"
            for look_up in catalog.look_ups
            if (why := await unproven(connection, look_up)) is not None
        ]
        problems += await _account_problems(connection, catalog.active_account, live)
    if problems:
        raise CatalogError(problems)
    # Of these only what the catalog names is looked at: nothing of them is found or masked by row.
    client_columns = {f"{c.table}." for c in catalog.client_tables}
    if catalog.active_account is not None:
        client_columns.add(f"{catalog.active_account.table}.")
    return tuple(c for c in unclaimed if not any(c.startswith(prefix) for prefix in client_columns))


async def unclaimed_tables(connection: AsyncConnection, catalog: Catalog) -> list[NamedColumn]:
    """Find tables that nobody claims and that have a column named as a client key is."""
    names = {client.client_key for client in catalog.client_tables}
    if not names:
        return []
    known = {table for table, _, _ in _claims(catalog)} | set(catalog.ignored_tables)
    found = await columns_named(connection, names, without_schema=SCHEMA)
    return [one for one in found if TableName(one.schema, one.table) not in known]


async def unclaimed_tables_of(
    connection: AsyncConnection, catalog: Catalog, subject: str
) -> list[NamedColumn]:
    """Find those of them that have rows of a person.

    A table that cannot be asked by an index is not searched: everybody is taken to have some. A
    client table whose masked rows read as the person's is one of them, if it has such rows.
    """
    alike = [
        NamedColumn(one.table.schema, one.table.name, one.client_key, askable=True)
        for one in catalog.client_tables
        if one.masks_as(subject)
    ]
    return [
        one
        for one in [*await unclaimed_tables(connection, catalog), *alike]
        if not one.askable
        or await holds_rows_of(connection, TableName(one.schema, one.table), one.column, subject)
    ]


def _claims(catalog: Catalog) -> list[Claim]:
    claimed: list[Claim] = [(c.table, c.columns, c.masks) for c in catalog.client_tables]
    claimed += [(t.table, t.columns, t.masks) for f in catalog.features.values() for t in f.tables]
    if (account := catalog.active_account) is not None:
        claimed.append((account.table, account.columns, {}))
    return claimed


async def _account_problems(
    connection: AsyncConnection,
    account: ActiveAccount | None,
    live: Mapping[tuple[str, str], TableColumns],
) -> list[str]:
    """Whether it can be asked at every batch if somebody is a customer."""
    if account is None:
        return []
    columns = live[account.table.schema, account.table.name]
    found = columns[account.opened_at]
    why = None
    if not found.type_name.endswith("with time zone"):
        why = (
            f"{account.opened_at} is {found.type_name}; what is compared with the moment of a"
            " request must be timestamp with time zone"
        )
    elif (subject := columns[account.subject]).category != TEXT:
        why = f"{account.subject} is {subject.type_name}; an account id is compared as text"
    elif not await asked_by_index(connection, account):
        why = (
            "no index serves the question for one person;"
            f" create one on {account.table} ({account.subject})"
        )
    return [] if why is None else [f"{account.at}: {why}"]


async def _refusals(
    connection: AsyncConnection,
    claimed: list[Claim],
    live: Mapping[tuple[str, str], TableColumns],
) -> list[str]:
    """What the database would say to masking; asked without writing anything."""
    problems: list[str] = []
    by_table = await constraints(connection, {(t.schema, t.name) for t, _, _ in claimed})
    for table, _, masks in claimed:
        place = (table.schema, table.name)
        constant = {name for name, mask in masks.items() if mask.text is not None}
        for constraint in by_table.get(place, ()):
            if not constraint.expression:
                if constraint.columns and constraint.columns <= constant:
                    problems.append(
                        f"{table}: the unique index {constraint.name} allows one masked row only;"
                        " mask one of its columns to null"
                    )
            elif constraint.columns & set(masks) and await breaks_check(
                connection, table, live[place], masks, constraint, CHECKED_ROWS
            ):
                problems.append(
                    f"{table}: the CHECK {constraint.name} refuses the masked row; write another"
                    f" mask for {', '.join(sorted(constraint.columns & set(masks)))}"
                )
    return problems


def _column_problems(
    table: TableName, columns: frozenset[str], masks: Mapping[str, Mask], found: TableColumns
) -> list[str]:
    problems = [
        f"{table}.{name}: the catalog claims this column and the table has none;"
        f" {did_you_mean(name, found)}"
        for name in sorted(columns - set(found))
    ]
    problems += [
        f"{table}.{name}: this role may not read it; `grant select`"
        for name in sorted(columns & set(found))
        if not found[name].readable
    ]
    for name, mask in masks.items():
        column = found.get(name)
        if column is None:
            continue
        if not column.writable:
            problems.append(f"{table}.{name}: this role may not mask it; `grant update`")
        if mask.text is None and column.not_null:
            problems.append(
                f"{table}.{name}: is NOT NULL, so the mask cannot be null; write a constant"
            )
        if column.generated:
            problems.append(
                f"{table}.{name}: is generated and cannot be masked; mask what it is made of"
            )
    return problems
