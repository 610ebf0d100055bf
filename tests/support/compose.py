"""docker-compose.yml as docker-compose reads it; no Docker engine is needed."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.tools import ROOT, run

SERVICES = ("intake", "relay", "eraser", "reporting")
EXAMPLE = ROOT / ".env.example"


@cache
def understood(environment: Path = EXAMPLE) -> dict[str, Any]:
    """Read the file with the values of `environment`; empty ones by default."""
    text = run("docker-compose", "--env-file", str(environment), "config")
    # It warns of empty values on standard error.
    lines = [line for line in text.splitlines() if not line.endswith("blank string.")]
    return dict(yaml.safe_load("\n".join(lines)))


def services() -> dict[str, dict[str, Any]]:
    """Give every container's definition."""
    return dict(understood()["services"])


def mounts(service: str) -> list[tuple[str, str]]:
    """Give every (source, target) that is mounted into a container."""
    found = services()[service].get("volumes", ())
    return [(source, target) for source, target, *_ in (mount.split(":") for mount in found)]


def filled_environment(service: str) -> dict[str, str]:
    """Give the variables of a service as somebody gets them who filled in .env.example.

    Paths are those of the tree instead of those in the container.
    """
    in_tree = {target: source for source, target in mounts(service)}
    values = _filled_services()[service]["environment"]
    return {name: in_tree.get(value, value) for name, value in values.items()}


@cache
def _filled_services() -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder) / ".env"
        filled.write_text("\n".join(_filled(line) for line in EXAMPLE.read_text().splitlines()))
        return dict(understood(filled)["services"])


def _filled(line: str) -> str:
    name = line.partition("=")[0]
    if not name or name.startswith("#"):
        return line
    return f"{name}=1:{'A' * 43}" if name.endswith("_KEYS") else f"{name}=secret"
