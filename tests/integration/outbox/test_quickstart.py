"""The README's quickstart, run as it stands by somebody who has nothing but this library.

It is installed from its wheel into an environment of its own, which also shows that the wheel is
whole and what comes along with it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tools import ROOT

README = ROOT / "libs" / "outbox" / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
NOT_WANTED = ("fastapi", "redis", "boto3", "botocore", "opentelemetry", "sentry_sdk", "pydantic")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the library's wheel and what it needs, at the locked versions."""
    home = tmp_path_factory.mktemp("alone")
    uv(home, "build", "--wheel", "--out-dir", str(home), str(ROOT / "libs" / "outbox"))
    (wheel,) = home.glob("*.whl")
    uv(home, "venv", "--python", "3.11", str(home / "venv"))
    uv(home, "pip", "install", "--constraint", str(pins(home)), str(wheel))
    return home / "venv"


def pins(home: Path) -> Path:
    """The locked versions, without their hashes: the wheel has none to be compared with."""
    lock = (ROOT / "requirements.lock").read_text()
    found = home / "constraints.txt"
    pinned = re.compile(r"^[\w.\[\]-]+==[^\s\\]+(?: ;[^\\\n]*)?", re.MULTILINE)
    found.write_text("\n".join(pinned.findall(lock)))
    return found


def uv(home: Path, *arguments: str) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": str(home / "venv")}
    done = subprocess.run(
        ["uv", *arguments], env=environment, cwd=home, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def environment(installed: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    path = f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(installed), **more}


def quickstart() -> Iterator[tuple[str, str]]:
    section = README.read_text().split("\n## Quickstart\n")[1].split("\n## ")[0]
    yield from BLOCK.findall(section)


def test_the_quickstart_does_what_it_shows(
    installed: Path, database_url: str, kafka: str, tmp_path: Path
) -> None:
    expected = ""
    script = ["set -euo pipefail"]
    for language, block in quickstart():
        if language == "python":
            name = FILE.match(block)
            assert name is not None, block
            (tmp_path / name[1]).write_text(block)
        elif language == "bash":
            script.append(block)
        else:
            assert language == "text"
            expected += block
    assert expected
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment(
            installed, DATABASE_URL=database_url, KAFKA=kafka, CHECKOUT=str(ROOT), UV_OFFLINE="1"
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected


PROGRAM = """
import importlib, pkgutil, sys
import lethe_outbox
for module in pkgutil.walk_packages(lethe_outbox.__path__, "lethe_outbox."):
    if module.name not in {"lethe_outbox.redis_fast_path", "lethe_outbox.otel"}:
        importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_wheel_alone_imports_and_is_typed(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["python", "-I", "-c", PROGRAM],
        env=environment(installed),
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(done.stdout.split())
    assert {"lethe_outbox", "sqlalchemy", "aiokafka"} <= loaded
    assert loaded & {*NOT_WANTED} == set()
    assert {name for name in loaded if name.startswith("lethe_")} == {"lethe_outbox"}
    assert list(installed.glob("lib/python*/site-packages/lethe_outbox/py.typed"))


@pytest.mark.parametrize("module", ["redis_fast_path", "otel"])
def test_an_extra_that_is_not_installed_is_named_by_its_import_error(
    installed: Path, module: str
) -> None:
    done = subprocess.run(
        ["python", "-I", "-c", f"import lethe_outbox.{module}"],
        env=environment(installed),
        check=False,
        capture_output=True,
        text=True,
    )
    missing = {"redis_fast_path": "redis", "otel": "opentelemetry"}[module]
    assert f"ModuleNotFoundError: No module named '{missing}'" in done.stderr


def test_the_command_runs_alone(installed: Path) -> None:
    done = subprocess.run(
        ["python", "-I", "-m", "lethe_outbox", "schema", "--only", "inbox"],
        env=environment(installed),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "CREATE TABLE lethe.inbox" in done.stdout


TYPE_ERRORS = """
from lethe_outbox import Message, Outbox
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession


def misused(engine: Engine, session: AsyncSession) -> None:
    Message("orders.v1", "customer-7", "text")
    Outbox("shop").append(engine)
    Outbox("shop").append(session)
"""


def test_a_program_of_users_is_checked_by_mypy_strict(installed: Path, tmp_path: Path) -> None:
    files = [FILE.match(block) for language, block in quickstart() if language == "python"]
    for name in files:
        assert name is not None
        (tmp_path / name[1]).write_text(name.string)
    (tmp_path / "misused.py").write_text(TYPE_ERRORS)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", str(installed / "bin/python"), "."],
        cwd=tmp_path,
        env={**os.environ, "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "alone")},
        check=False,
        capture_output=True,
        text=True,
    )
    complaints = re.findall(r"^(\w+\.py:\d+): error: .*\[([\w-]+)\]$", checked.stdout, re.MULTILINE)
    assert complaints == [
        ("misused.py:8", "arg-type"),
        ("misused.py:9", "arg-type"),
        ("misused.py:10", "arg-type"),
    ], checked.stdout + checked.stderr
