"""What reporting keeps; all SQL of the service, one module per table group."""

from pathlib import Path
from typing import Final

MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
VERSION_TABLE: Final = "alembic_version_reporting"
