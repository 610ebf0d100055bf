"""Which of the sample's processes gets which secret."""

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
