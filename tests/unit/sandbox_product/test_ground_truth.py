"""The ground-truth file says what was written, byte for byte the same, or why it cannot be read."""

from pathlib import Path

import pytest

from lethe_sandbox.ground_truth import (
    GroundTruth,
    GroundTruthError,
    Person,
    Row,
    StoredObject,
    differing,
    row_digests,
)

TRUTH = GroundTruth(
    seed=1,
    scale=0.5,
    persons={
        "한글": Person(
            "한글", "exotic", requested=True, end="blocked", reasons={"unknown_type": 2}
        ),
        "b": Person("b", "other", requested=False, end=None, requests=3),
    },
    rows={
        "client": {
            7: Row(
                "client",
                7,
                "upscale",
                "b",
                "erased",
                row_digests(["7", None]),
                empty={"prompt": None},
                needles=('a "b"\n',),
                keeps=(("bucket", "key"),),
            ),
        },
    },
    objects={
        "bucket": {"k": StoredObject("bucket", "k", "shared", None, "shared", ("e1", "e2"), True)}
    },
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    TRUTH.write(tmp_path / "truth.json")
    assert GroundTruth.read(tmp_path / "truth.json") == TRUTH
    assert [path.name for path in tmp_path.iterdir()] == ["truth.json"]


def test_nothing_at_all_can_be_written_and_read(tmp_path: Path) -> None:
    empty = GroundTruth(1, 1.0, {}, {}, {})
    empty.write(tmp_path / "truth.json")
    assert GroundTruth.read(tmp_path / "truth.json") == empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"format": 2, "seed": 1, "scale": 1,\n"persons": [\n],\n"rows": [\n],\n"objects": [\n]}\n',
        '{"format": 1, "seed": 1, "scale": 1,\n"rows": [\n]}\n',
        '{"format": 1, "seed": 1, "scale": 1,\n"persons": [\n{"key": "a"}\n]}\n',
        '{"format": 1, "seed": 1, "scale": 1,\n"persons": [\n',
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(GroundTruthError, match="seed the sample again"):
        GroundTruth.read(tmp_path / "truth.json")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="seed the sample again"):
        GroundTruth.read(tmp_path / "none.json")


def test_digests_tell_which_columns_differ() -> None:
    digests = row_digests(["1", None, "x", ""])
    assert differing(digests, ["1", None, "x", ""]) == []
    assert differing(digests, ["1", "", "y", None]) == [1, 2, 3]
