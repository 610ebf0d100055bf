"""docs/handlers.md is true: the handler on it, put where it says, erases what it says."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from lethe_eraser import handlers
from lethe_eraser.catalog import load
from lethe_eraser.handlers import factories
from tests.integration.eraser.world import (
    NOTHING,
    OTHER,
    SUBJECT,
    Killed,
    World,
    make_catalog,
    put_in,
    to_the_end,
)

PAGE: Final = Path(__file__).parents[3] / "docs" / "handlers.md"


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
async def albums(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world with the page's handler and entry."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    (folder / "key_list.py").write_text(block("python"))
    monkeypatch.setattr(handlers, "__path__", [*handlers.__path__, str(folder)])
    entry = block("yaml").replace("sample-documents", world.buckets["documents"])
    make_catalog(tmp_path, world.buckets, {"features:\n": f"features:\n{entry}"})
    world.catalog = load(tmp_path / "catalog.yaml")
    await world.write(
        "create table public.album (id bigint generated always as identity primary key,"
        " list_path text, title text, created_at timestamptz not null default '2024-03-01')"
    )
    return world


async def album(world: World, name: str, *keys: str, subject: str = SUBJECT) -> int:
    for key in keys:
        world.put("documents", key)
    world.put("documents", f"lists/{subject}-{name}.txt", "\n".join(keys).encode())
    number = await world.write(
        "insert into album (list_path, title) values (:p, 'a title') returning id",
        p=f"lists/{subject}-{name}.txt",
    )
    await world.client_row("album", number, subject=subject)
    return int(number)


def test_the_entry_is_one_entry_of_a_catalog() -> None:
    assert list(yaml.safe_load(block("yaml"))) == ["album"]


async def test_it_is_found_by_its_files_name(albums: World) -> None:
    assert albums.catalog.features["album"].handler == "key_list"
    assert set(factories()) == {"ai_generate", "pdf", "key_list"}


async def test_a_person_is_erased_and_nobody_else(albums: World) -> None:
    await album(albums, "one", f"pictures/{SUBJECT}/1.png", f"pictures/{SUBJECT}/2.png")
    await album(albums, "none")
    theirs = await album(albums, "one", f"pictures/{OTHER}/1.png", subject=OTHER)
    await albums.accept(albums.requested())
    assert await to_the_end(albums, albums.eraser()) == "verified"
    assert await albums.left_of(SUBJECT) == NOTHING
    assert albums.keys("documents") == {f"lists/{OTHER}-one.txt", f"pictures/{OTHER}/1.png"}
    kept = await albums.rows("select id from album where list_path is not null")
    assert [row.id for row in kept] == [theirs]


async def test_a_list_that_cannot_be_read_blocks_its_row_alone(albums: World) -> None:
    await album(albums, "gone")
    await album(albums, "no-text")
    await album(albums, "fine", f"pictures/{SUBJECT}/1.png")
    albums.s3.delete_object(
        Bucket=albums.buckets["documents"],
        Key=f"lists/{SUBJECT}-gone.txt",
        VersionId=albums.s3.head_object(
            Bucket=albums.buckets["documents"], Key=f"lists/{SUBJECT}-gone.txt"
        )["VersionId"],
    )
    albums.put("documents", f"lists/{SUBJECT}-no-text.txt", b"\xff\xfe")
    await albums.accept(albums.requested())
    assert await to_the_end(albums, albums.eraser()) == "blocked"
    reasons = await albums.value("select reasons from lethe.job")
    assert reasons == {"manifest_missing": 1, "manifest_invalid": 1}
    assert await albums.value("select count(*) from album where title is null") == 1


async def test_killed_between_the_deletes_and_the_mask_the_next_one_finishes(
    albums: World,
) -> None:
    await album(albums, "one", f"pictures/{SUBJECT}/1.png")
    await albums.accept(albums.requested())
    dying = albums.eraser()

    async def killed(*_: object) -> None:
        raise Killed

    put_in(dying.batches, "mask", killed)
    with pytest.raises(Killed):
        await dying.until_idle()
    assert await to_the_end(albums, albums.eraser()) == "verified"
    assert albums.keys("documents") == set()
