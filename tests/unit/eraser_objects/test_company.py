"""Which keys go in one page when two batches are under way, and that nobody waits for ever."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from lethe_eraser.objects.company import Company, Seat
from lethe_eraser.objects.deleting import Item

PAGE = 4
BUCKET = "images"


@dataclass(slots=True)
class Sent:
    """Takes pages; answers each at once."""

    pages: list[tuple[str, list[str]]] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()

    async def __call__(self, bucket: str, items: Sequence[Item]) -> dict[Item, str]:
        self.pages.append((bucket, [item.key for item in items]))
        if any(item.key in self.broken for item in items):
            raise ConnectionError
        return {item: "AccessDenied" for item in items if item.key in self.refused}

    @property
    def keys(self) -> list[list[str]]:
        return [page for _, page in self.pages]


def items(text: str) -> list[Item]:
    return [Item(key) for key in text.split()]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def begin(
    company: Company, sent: Sent, keys: str, *, bucket: str = BUCKET
) -> asyncio.Task[dict[Item, str]]:
    """Begin one more batch, which deletes these keys."""

    async def delete() -> dict[Item, str]:
        seat = Seat.taken()
        assert seat is not None
        seat.expect([bucket] if keys else [])
        return await seat.delete(bucket, items(keys), sent, PAGE)

    with company.seat() as seat:
        task = asyncio.create_task(delete())
    task.add_done_callback(lambda _: seat.leave())
    return task


async def test_what_does_not_fill_a_page_goes_with_the_next_batch() -> None:
    company, sent = Company(), Sent()
    first = begin(company, sent, "a b c d e")
    await settle()
    assert sent.keys == [["a", "b", "c", "d"]]
    assert not first.done()
    second = begin(company, sent, "f g h i j")
    await settle()
    assert sent.keys[1:] == [["e", "f", "g", "h"]]
    assert first.done()
    assert not second.done()
    company.nobody_comes()
    await second
    assert sent.keys[2:] == [["i", "j"]]


async def test_the_older_batch_waits_for_no_third() -> None:
    company, sent = Company(), Sent()
    first, second = begin(company, sent, "a"), begin(company, sent, "b")
    await first
    await second
    assert sent.keys == [["a", "b"]]


@pytest.mark.parametrize("keys", ["", "x"])
async def test_a_batch_without_keys_for_the_bucket_lets_the_older_go(keys: str) -> None:
    company, sent = Company(), Sent()
    first = begin(company, sent, "a")
    await settle()
    second = begin(company, sent, keys, bucket="others")
    await first
    company.nobody_comes()
    await second
    assert ("images", ["a"]) in sent.pages


async def test_a_batch_that_deletes_nothing_at_all_lets_the_older_go() -> None:
    company, sent = Company(), Sent()
    first = begin(company, sent, "a")
    with company.seat() as seat:
        pass
    await settle()
    assert not first.done()
    seat.leave()
    await first


async def test_keys_that_come_late_to_the_older_batch_are_sent_at_once() -> None:
    """As a manifest does, which goes after its files."""
    company, sent = Company(), Sent()
    late = asyncio.Event()

    async def in_two_steps() -> None:
        seat = Seat.taken()
        assert seat is not None
        seat.expect([BUCKET])
        await seat.delete(BUCKET, items("a"), sent, PAGE)
        await late.wait()
        await seat.delete(BUCKET, items("z"), sent, PAGE)

    with company.seat():
        first = asyncio.create_task(in_two_steps())
    second = begin(company, sent, "b c d e f")
    await settle()
    assert sent.keys == [["a", "b", "c", "d"]]
    late.set()
    await first
    await second
    assert sent.keys[1:] == [["z", "e", "f"]]


async def test_one_batch_alone_waits_for_nobody() -> None:
    company, sent = Company(), Sent()
    first = begin(company, sent, "a b")
    company.nobody_comes()
    await first
    # Nor does what follows, until another batch begins.
    second = begin(company, sent, "c")
    await settle()
    assert not second.done()
    company.nobody_comes()
    await second


async def test_each_batch_hears_of_its_own_keys() -> None:
    company = Company()
    sent = Sent(refused=frozenset({"b", "c"}))
    first, second = begin(company, sent, "a b"), begin(company, sent, "b c")
    await settle()
    company.nobody_comes()
    assert await first == {Item("b"): "AccessDenied"}
    assert await second == {Item("b"): "AccessDenied", Item("c"): "AccessDenied"}
    # A key of both is named once.
    assert sent.keys == [["a", "b", "c"]]


async def test_an_outage_is_raised_to_everybody_on_the_page() -> None:
    company, sent = Company(), Sent(broken=frozenset({"b"}))
    first, second = begin(company, sent, "a"), begin(company, sent, "b c d")
    for task in (first, second):
        with pytest.raises(ConnectionError):
            await task
    await company.end()


async def test_keys_of_one_page_are_neighbours() -> None:
    company, sent = Company(), Sent()
    first = begin(company, sent, "y/1 x/1 y/2 x/2 z/1")
    company.nobody_comes()
    await first
    assert sent.keys == [["x/1", "x/2", "y/1", "y/2"], ["z/1"]]


async def test_the_last_batch_still_fills_the_page_of_the_one_before() -> None:
    company, sent = Company(), Sent()
    first = begin(company, sent, "a")
    await settle()
    second = begin(company, sent, "b c d")
    # It is known that nobody comes after it before it has said what it deletes.
    company.nobody_comes()
    await first
    await second
    assert sent.keys == [["a", "b", "c", "d"]]


async def test_what_an_earlier_batch_deleted_is_not_sent_again() -> None:
    company, sent = Company(), Sent(refused=frozenset({"r"}))
    for keys in ("a b r", "b c r", "a b c"):
        deleted = begin(company, sent, keys)
        company.nobody_comes()
        assert await deleted == ({Item("r"): "AccessDenied"} if "r" in keys else {})
    # The same name in another bucket is another object; what was refused may go now.
    other = begin(company, sent, "a", bucket="others")
    company.nobody_comes()
    await other
    assert sent.pages == [(BUCKET, ["a", "b", "r"]), (BUCKET, ["c", "r"]), ("others", ["a"])]


async def test_a_page_that_may_have_failed_is_sent_again() -> None:
    company, sent = Company(), Sent(broken=frozenset({"a"}))
    first = begin(company, sent, "a")
    company.nobody_comes()
    with pytest.raises(ConnectionError):
        await first
    sent.broken = frozenset()
    second = begin(company, sent, "a")
    company.nobody_comes()
    await second
    assert sent.keys == [["a"], ["a"]]


async def test_a_version_is_always_sent() -> None:
    """The version `null` of a suspended bucket can come back under its own name."""
    company, sent = Company(), Sent()
    version = [Item("a", "null")]
    for _ in range(2):
        with company.seat() as seat:
            seat.expect([BUCKET])
            company.nobody_comes()
            assert await seat.delete(BUCKET, version, sent, PAGE) == {}
        seat.leave()
    assert sent.keys == [["a"], ["a"]]


async def test_no_more_keys_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lethe_eraser.objects.company._MOST_GONE", 1)
    company, sent = Company(), Sent()
    for _ in range(2):
        deleted = begin(company, sent, "a b")
        company.nobody_comes()
        await deleted
    assert sent.keys == [["a", "b"], ["b"]]
