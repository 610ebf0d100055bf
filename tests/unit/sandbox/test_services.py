"""Which of the sample's processes gets which secret."""

import shutil
import subprocess
import sys
from pathlib import Path

from lethe_sandbox.services import ApiKeys, services, write_environment
from tests.unit.sandbox.test_addresses import ADDRESSES

RING = "LETHE_ERASER_SUBJECT_REF_KEYS"


def test_a_shell_can_preview_and_the_eraser_that_runs_knows_no_references(tmp_path: Path) -> None:
    everyone = services(ADDRESSES, batch_rows=500)
    assert not [one.name for one in everyone if RING in one.environment]
    [intake] = [one for one in everyone if one.name == "intake"]
    write_environment(tmp_path / "environment", everyone, ApiKeys("one", "two"))
    written = (tmp_path / "environment").read_text().splitlines()
    assert f"{RING}='{intake.environment['LETHE_INTAKE_SUBJECT_REF_KEYS']}'" in written


def test_a_shell_that_reads_the_file_finds_lethe(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    write_environment(file, services(ADDRESSES, batch_rows=500), ApiKeys("one", "two"))
    shell = shutil.which("sh")
    assert shell is not None
    asked = f"set -a; . {file}; set +a; command -v lethe; command -v sh; echo $INTAKE_KEY"
    said = subprocess.run(
        [shell, "-euc", asked],
        env={"PATH": str(Path(shell).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [str(Path(sys.executable).parent / "lethe"), shell, "one"]
