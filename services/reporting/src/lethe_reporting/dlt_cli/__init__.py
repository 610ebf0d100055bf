"""The group `lethe dlt`: look at dead letters, send them back, or give them up."""

from lethe_reporting.dlt_cli.commands import app

__all__ = ["app"]
