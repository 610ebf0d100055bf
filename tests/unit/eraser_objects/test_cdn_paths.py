"""Under which paths the CDN served an object, and in which portions it is told."""

from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from lethe_eraser.catalog import Origin
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects.cdn import batches, paths_at

DISTRIBUTIONS = {
    "E1": (Origin("images", "/public"), Origin("archive", "", "/old/*")),
    "E2": (Origin("images"),),
}


def paths(*refs: ObjectRef, own: tuple[str, ...] = ()) -> dict[str, set[str]]:
    return paths_at(DISTRIBUTIONS, refs, own)


def test_a_path_is_the_key_without_what_the_origin_adds() -> None:
    assert paths(ObjectRef("images", "public/a b.png")) == {
        "E1": {"/a%20b.png"},
        "E2": {"/public/a%20b.png"},
    }
    # Neither beside the origin's folder, nor in another bucket, nor outside the pattern.
    assert paths(ObjectRef("images", "publicity/a.png")) == {"E2": {"/publicity/a.png"}}
    assert paths(ObjectRef("else", "public/a.png")) == {}
    assert paths(ObjectRef("archive", "old/a"), ObjectRef("archive", "new/a")) == {"E1": {"/old/a"}}


def test_a_prefix_that_is_all_the_persons_is_one_wildcard() -> None:
    refs = [ObjectRef("images", f"public/u/acct-1/{n}.png") for n in range(5000)]
    other = ObjectRef("images", "public/u/acct-17/1.png")
    found = paths(*refs, other, own=("public/u/acct-1/",))
    assert found == {
        "E1": {"/u/acct-1/*", "/u/acct-17/1.png"},
        "E2": {"/public/u/acct-1/*", "/public/u/acct-17/1.png"},
    }


def test_a_prefix_above_the_origins_folder_is_no_wildcard() -> None:
    # `/*` would empty the whole distribution for one person.
    found = paths(ObjectRef("images", "public/a.png"), own=("pub",))
    assert found["E1"] == {"/a.png"}


@given(st.text(min_size=1, max_size=50).filter(lambda key: "/" not in key[:1]))
def test_any_key_has_a_path_that_means_it_and_nothing_else(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        return
    [path] = paths(ObjectRef("images", key))["E2"]
    assert unquote(path) == f"/{key}"
    assert path.isascii()
    assert not set(path) & set('*?"<>#\\ ')


def test_portions_are_as_large_as_cloudfront_takes() -> None:
    portions = list(batches([*(f"/{n}" for n in range(2500)), *(f"/p{n}/*" for n in range(20))]))
    assert [len(portion) for portion in portions] == [15, 5, 1000, 1000, 500]
    assert all(path.endswith("*") for portion in portions[:2] for path in portion)
    assert not any(path.endswith("*") for portion in portions[2:] for path in portion)
