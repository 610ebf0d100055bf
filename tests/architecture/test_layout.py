"""The tree tells the story: the same file names mean the same in every service."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("intake", "relay", "eraser", "reporting")
MEMBERS = ("libs/outbox", "libs/contracts", "libs/runtime", *(f"services/{s}" for s in SERVICES))
IN_EVERY_SERVICE = ("__init__.py", "__main__.py", "settings.py", "container.py", "cli.py")
SERVICE_MODULES = {
    "__init__",
    "__main__",
    "api",
    "catalog",
    "catalog_cli",
    "catalog_schema",
    "check",
    "cli",
    "consumer",
    "container",
    "dlt_cli",
    "domain",
    "fence",
    "jobs_cli",
    "metrics",
    "migrations",
    "objects",
    "outbox_cli",
    "pace",
    "references",
    "settings",
    "storage",
    "topics",
    "window",
    # loops, named by what they do
    "execute",
    "sample",
    "verify",
    "watermark",
}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
LONGEST_MODULE = 400


def tracked_python() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return [ROOT / line for line in listed if (ROOT / line).exists()]


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_has_its_project_file_and_is_typed(member: str) -> None:
    package = ROOT / member / "src" / f"lethe_{Path(member).name}"
    assert (ROOT / member / "pyproject.toml").is_file()
    assert (package / "py.typed").is_file()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_files_every_service_has(service: str) -> None:
    package = ROOT / "services" / service / "src" / f"lethe_{service}"
    assert [name for name in IN_EVERY_SERVICE if not (package / name).is_file()] == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_file_whose_name_says_nothing_yet(service: str) -> None:
    package = ROOT / "services" / service / "src" / f"lethe_{service}"
    names = {
        path.stem for path in package.iterdir() if not path.name.startswith(("__py", "py.typed"))
    }
    assert names - SERVICE_MODULES - {"handlers"} == set()


def test_no_module_has_a_name_that_could_hold_anything() -> None:
    assert [path for path in tracked_python() if path.stem in FORBIDDEN_NAMES] == []


def test_no_module_of_the_product_is_two_modules() -> None:
    product = [p for p in tracked_python() if "src" in p.parts and "migrations" not in p.parts]
    assert product
    long = {p.name: n for p in product if (n := len(p.read_text().splitlines())) > LONGEST_MODULE}
    assert long == {}


def test_sql_stands_in_storage_only() -> None:
    """In services, only storage and migrations build statements."""
    allowed = {"storage", "migrations"}
    found = [
        path.relative_to(ROOT)
        for path in tracked_python()
        if "services" in path.parts
        and not allowed & {*path.parts, path.stem}
        and any(
            marker in path.read_text()
            for marker in (
                "import select",
                "text(",
                "sqlalchemy.dialects",
                ".execute(\n",
                "sa.text",
            )
        )
    ]
    assert found == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "repo.maven" + ".apache", "deb" + ".debian")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    found = [
        name
        for name in tracked
        if (ROOT / name).is_file()
        and any(host in (ROOT / name).read_text(errors="replace") for host in hosts)
    ]
    assert found == []
