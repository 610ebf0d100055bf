"""The catalog: the only place that names the product's tables, columns, JSON shapes and hosts.

`load` turns the YAML into frozen values that need no further checks, or lists everything that is
wrong at once and says what to write instead. `lethe_eraser.check` holds them to the live database.
"""

from lethe_eraser.catalog.document import did_you_mean
from lethe_eraser.catalog.findings import KINDS, Finding, FindingKind
from lethe_eraser.catalog.load import load
from lethe_eraser.catalog.model import (
    ActiveAccount,
    Bucket,
    Catalog,
    CatalogError,
    ClientTable,
    Feature,
    Ignored,
    LookUp,
    Mask,
    Origin,
    Ownership,
    ProductTable,
    ReferenceRule,
    Rules,
    Settle,
    SharedObjects,
    TableName,
)

__all__ = [
    "KINDS",
    "ActiveAccount",
    "Bucket",
    "Catalog",
    "CatalogError",
    "ClientTable",
    "Feature",
    "Finding",
    "FindingKind",
    "Ignored",
    "LookUp",
    "Mask",
    "Origin",
    "Ownership",
    "ProductTable",
    "ReferenceRule",
    "Rules",
    "Settle",
    "SharedObjects",
    "TableName",
    "did_you_mean",
    "load",
]
