"""Migrations are named as a process reads them that does not load what applies them."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

ROOT = Path(__file__).parents[2]
SERVICES = ("intake", "relay", "eraser", "reporting")
FOLDERS = sorted(ROOT.glob("services/*/src/*/migrations"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.parent.name))
def test_files_begin_with_their_revision_and_are_in_order(folder: Path) -> None:
    newest_first = [script.revision for script in ScriptDirectory(str(folder)).walk_revisions()]
    names = sorted(path.stem for path in (folder / "versions").glob("*.py"))
    assert [name.partition("_")[0] for name in names] == newest_first[::-1]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_without_what_applies_them(service: str) -> None:
    program = f"import sys, lethe_{service}.container; print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.strip() == b"False"
