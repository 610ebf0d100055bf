"""The catalog: the only place that names the product's tables, columns, JSON shapes and hosts.

`load` turns the YAML into frozen values that need no further checks; `check_schema` holds them to
the live database. Both list everything that is wrong at once, and say what to write instead.
"""

from lethe_eraser.catalog.check import check_schema
from lethe_eraser.catalog.document import did_you_mean
from lethe_eraser.catalog.load import load
from lethe_eraser.catalog.model import (
    Bucket,
    Catalog,
    CatalogError,
    ClientTable,
    Feature,
    Ignored,
    Mask,
    Origin,
    Ownership,
    ProductTable,
    ReferenceRule,
    Rules,
    SharedObjects,
    TableName,
)

__all__ = [
    "Bucket",
    "Catalog",
    "CatalogError",
    "ClientTable",
    "Feature",
    "Ignored",
    "Mask",
    "Origin",
    "Ownership",
    "ProductTable",
    "ReferenceRule",
    "Rules",
    "SharedObjects",
    "TableName",
    "check_schema",
    "did_you_mean",
    "load",
]
