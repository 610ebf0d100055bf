"""What `make` promises: every member is installed, nothing of the tree names a package index."""

import re
import subprocess
import tomllib
from pathlib import Path

from lethe_sandbox.stack.embedded import versitygw

ROOT = Path(__file__).parents[2]
BOOTSTRAP = ROOT / "sandbox" / "bootstrap.sh"


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_member_of_the_workspace_is_installed() -> None:
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    members = {
        str(path.parent.relative_to(ROOT))
        for pattern in workspace["members"]
        for path in ROOT.glob(f"{pattern}/pyproject.toml")
    }
    listed = re.search(r"readonly MEMBERS=\(([^)]*)\)", BOOTSTRAP.read_text())
    assert listed is not None
    assert set(listed[1].split()) == members


def test_the_lock_pins_with_hashes_and_names_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([a-z0-9.-]+==\S+)(?: ;.*)? \\$", lock, re.MULTILINE | re.IGNORECASE)
    assert pins
    assert lock.count("--hash=sha256:") >= len(pins)
    assert "://" not in lock


def test_make_help_lists_every_target() -> None:
    said = subprocess.run(
        ["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    listed = set(re.findall(r"^  make (\w+)", said, re.MULTILINE))
    assert listed == targets()


def test_the_documents_name_targets_that_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")):
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE))
        assert named <= targets(), page


def test_the_scripts_are_valid_and_executable() -> None:
    for script in (BOOTSTRAP, ROOT / ".ci" / "run"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert script.stat().st_mode & 0o111


def test_the_second_s3_server_is_the_one_that_is_built() -> None:
    pinned = re.search(r"^readonly VERSITYGW=(\S+)$", BOOTSTRAP.read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == versitygw.VERSION
