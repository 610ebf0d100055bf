"""The folders outside the checkout: only ours are used, and they go when the checkout has gone."""

import shutil
from pathlib import Path

import pytest

from lethe_sandbox.stack import Folders, StackError
from lethe_sandbox.stack import folders as module


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(module, "_SHARED", folder)
    return folder


def test_two_checkouts_have_folders_of_their_own(tmp_path: Path, shared: Path) -> None:
    one, two = Folders(tmp_path / "one" / ".sandbox"), Folders(tmp_path / "two" / ".sandbox")
    assert one.make_passable() != two.make_passable()
    assert {path.parent for path in (one.passable, two.passable)} == {shared}
    assert one.passable.stat().st_mode & 0o777 == 0o755


def test_a_folder_somebody_else_made_is_not_used(tmp_path: Path, shared: Path) -> None:
    folders = Folders(tmp_path / ".sandbox")
    elsewhere = shared / "elsewhere"
    elsewhere.mkdir()
    folders.passable.symlink_to(elsewhere)
    with pytest.raises(StackError, match="not a folder of this user"):
        folders.make_passable()


def test_the_folder_of_a_checkout_that_is_gone_is_removed(tmp_path: Path, shared: Path) -> None:
    stays, goes = Folders(tmp_path / "stays"), Folders(tmp_path / "goes")
    for folders in (stays, goes):
        folders.base.mkdir()
        folders.make_passable()
    (shared / "lethe-of-somebody").mkdir()
    goes.base.rmdir()
    module.remove_orphaned()
    assert sorted(path.name for path in shared.iterdir()) == sorted(
        ["lethe-of-somebody", stays.passable.name]
    )


def test_what_others_must_run_is_readable_for_them_and_the_original_stays_private(
    tmp_path: Path,
) -> None:
    source = tmp_path / "private"
    source.mkdir(mode=0o700)
    (source / "program").touch(mode=0o700)
    (source / "data").touch(mode=0o600)
    module.copy_readable(source, tmp_path / "copy")
    assert (tmp_path / "copy" / "program").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "copy" / "data").stat().st_mode & 0o777 == 0o644
    assert source.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(tmp_path / "copy")
