"""The library alone: what importing it loads, and what it raises."""

import ast
import builtins
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiokafka.errors
import pytest

import lethe_outbox
from lethe_outbox import LetheOutboxError, OutboxTables

HOME = Path(lethe_outbox.__file__).parent
EXTRAS = {"lethe_outbox.redis_fast_path": "redis", "lethe_outbox.otel": "opentelemetry"}
MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages([str(HOME)], "lethe_outbox.")
    if found.name != "lethe_outbox.__main__"
)

BLOCKER = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocker())
for name in {modules}:
    importlib.import_module(name)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
BLOCKED = {
    *("fastapi", "starlette", "uvicorn", "redis", "boto3", "botocore", "aiobotocore", "s3transfer"),
    *("opentelemetry", "sentry_sdk", "pydantic", "typer", "structlog", "dependency_injector"),
    *("asyncpg", "psycopg2"),
    *("lethe_contracts", "lethe_runtime", "lethe_sandbox"),
    *("lethe_intake", "lethe_relay", "lethe_eraser", "lethe_reporting"),
}


def run(modules: list[str], blocked: set[str]) -> subprocess.CompletedProcess[str]:
    program = BLOCKER.format(blocked=sorted(blocked), modules=modules)
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )


def test_no_module_but_those_of_extras_needs_anything_optional() -> None:
    done = run([name for name in MODULES if name not in EXTRAS], BLOCKED)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & BLOCKED == set()


@pytest.mark.parametrize("module", EXTRAS)
def test_a_module_of_an_extra_says_what_is_missing(module: str) -> None:
    done = run([module], BLOCKED)
    assert f"blocked: {EXTRAS[module]}" in done.stderr.splitlines()[-1]


def raised() -> Iterator[tuple[str, str]]:
    """Each name that the library raises, with its module."""
    for name in MODULES:
        module = importlib.import_module(name)
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            thrown = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(thrown, ast.Name):
                yield name, thrown.id


def test_everything_raised_on_purpose_has_one_root() -> None:
    strangers = []
    for module, name in raised():
        found = getattr(importlib.import_module(module), name, getattr(builtins, name, None))
        if not isinstance(found, type):
            continue  # a variable: something is raised again, or an instance of one of these
        kafkas = issubclass(found, aiokafka.errors.KafkaError)
        if not issubclass(found, LetheOutboxError) and not kafkas:
            strangers.append(f"{module}: {name}")
    assert strangers == []


def test_every_public_name_is_there() -> None:
    assert [name for name in lethe_outbox.__all__ if not hasattr(lethe_outbox, name)] == []
    public_errors = {name for name in vars(lethe_outbox.errors) if name.endswith("Error")}
    assert public_errors - {*lethe_outbox.__all__} == set()


def test_tables_say_nothing_that_sqlalchemy_2_0_does_not_know() -> None:
    """The oldest version that the library allows is not the one that tests run on."""
    for table in OutboxTables().metadata.tables.values():
        assert set(table.dialect_kwargs) <= {"postgresql_partition_by"}, table.name
