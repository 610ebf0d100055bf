"""`python -m lethe_contracts.schemas` writes the schema files anew."""

from lethe_contracts.schemas import write

write()
