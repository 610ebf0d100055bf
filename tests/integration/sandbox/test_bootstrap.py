"""What `make` says on a machine that lacks something and has no way to bring it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BASIC = ("bash", "cat", "cut", "dirname", "env", "mkdir", "mktemp", "rm", "sed", "sha256sum")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout's bootstrap on a machine that has next to nothing."""
    (tmp_path / "sandbox").mkdir()
    shutil.copy(ROOT / "sandbox" / "bootstrap.sh", tmp_path / "sandbox")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in BASIC:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return tmp_path


@pytest.mark.parametrize(
    ("part", "missing"),
    [("python", "Python 3.11"), ("servers", "maven"), ("tools", "promtool")],
)
def test_what_is_missing_is_said_in_one_line(bare: Path, part: str, missing: str) -> None:
    # Every member's project file counts into the fingerprint of what is installed.
    for member in subprocess.run(
        ["git", "ls-files", "*pyproject.toml", "requirements.lock"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split():
        (bare / member).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / member, bare / member)
    done = subprocess.run(
        ["/bin/bash", str(bare / "sandbox" / "bootstrap.sh"), part],
        env={"PATH": str(bare / "bin"), "JAVA_HOME": ""},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert missing in done.stderr
    assert done.stderr.startswith("lethe: ")
    assert done.stderr.count("\n") == 1
