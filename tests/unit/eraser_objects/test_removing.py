"""What is sent to S3 for an object: which versions, how, and in which buckets."""

import pytest

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import ObjectStore, S3Options
from lethe_eraser.objects.deleting import Item
from lethe_eraser.objects.listing import Version
from lethe_eraser.objects.removing import _data

K = ObjectRef("b", "k")
NULL = Version("k", "null", is_marker=False, etag="e")
SECOND = Version("k", "2", is_marker=False, etag="f")
MARKER = Version("k", "3", is_marker=True)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([NULL], [Item("k", "null", "e")]),
        ([SECOND, NULL], [Item("k", "2")]),
        ([NULL, SECOND], [Item("k", "null", "e"), Item("k", "2")]),
        ([NULL, MARKER], [Item("k", "null")]),
        ([SECOND], [Item("k", "2")]),
        ([Version("k", "null", is_marker=False)], [Item("k", "null")]),
        ([MARKER], []),
    ],
)
def test_a_null_that_was_read_is_compared_when_it_is_current(
    versions: list[Version], expected: list[Item]
) -> None:
    """Listed newest first; what is not current waits, and under a marker nothing is compared."""
    assert _data({K: versions}, [K], {K: ("e",)}) == expected
    by_name = [Item("k", v.version_id) for v in versions if not v.is_marker]
    assert _data({K: versions}, [K], {}) == by_name


def test_a_version_means_the_same_version_of_every_copy() -> None:
    store = ObjectStore(S3Options(), {"b": Bucket("b", replicas=("c",)), "c": Bucket("c")})
    version, whole, strange = ObjectRef("b", "k", "7"), K, ObjectRef("x", "k")
    copies, unknown = store._copies([version, whole, strange])
    assert copies == {
        version: {version, ObjectRef("c", "k", "7")},
        whole: {whole, ObjectRef("c", "k")},
    }
    assert set(unknown) == {strange}
