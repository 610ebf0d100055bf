"""Reading never skips a late commit: looks, floors and lanes against a model of the database."""

import asyncio
from dataclasses import dataclass, field
from itertools import cycle

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lethe_outbox.relay.horizon import Horizon, Look
from lethe_outbox.relay.lane import Fetched, Lane, Lease, Row

BUCKETS = (0, 16)
KEYS = ("a0", "b0", "a16")
FAR = 10**9
"""More ids than there are."""


def bucket_of(key: str) -> int:
    return int(key[1:])


@dataclass
class Transaction:
    keys: set[str] = field(default_factory=set)
    ids: list[int] = field(default_factory=list)


class LateCommits(RuleBasedStateMachine):
    """Writers begin, draw ids, wait, commit or roll back between every two steps of a fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.last_id = 0
        self.begun = 0
        self.open: dict[str, Transaction] = {}
        self.key_of: dict[int, str] = {}
        self.visible: set[int] = set()
        self.gone: set[int] = set()
        self.sent: set[int] = set()
        self.published: list[int] = []
        self.horizon = Horizon()
        leases = [Lease(bucket, 1, 0, 0) for bucket in BUCKETS]
        self.lane = Lane.claimed(0, leases, 0.0, 2)
        self.look: Look | None = None
        self.last_seen: int | None = None
        self.watched: set[str] | None = None
        self.rows: list[Fetched] | None = None
        self.looked_after = False

    # Writers

    @rule(key=st.sampled_from(KEYS))
    def begin(self, key: str) -> None:
        """A writer takes the table's lock, then the key's, then draws its id."""
        if any(key in one.keys for one in self.open.values()) or len(self.open) > 3:
            return
        self.begun += 1
        writer = f"3/{self.begun}"
        self.open[writer] = Transaction()
        self._draw(writer, key)

    @rule(key=st.sampled_from(KEYS))
    def write_and_commit(self, key: str) -> None:
        """A whole transaction between two steps of the relay."""
        if any(key in one.keys for one in self.open.values()):
            return
        self.begun += 1
        self.open[f"4/{self.begun}"] = Transaction()
        self._draw(f"4/{self.begun}", key)
        self.visible.update(self.open.pop(f"4/{self.begun}").ids)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def write_more(self, data: st.DataObject, key: str) -> None:
        writer = data.draw(st.sampled_from(sorted(self.open)))
        if any(key in one.keys for name, one in self.open.items() if name != writer):
            return
        self._draw(writer, key)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        writer = data.draw(st.sampled_from(sorted(self.open)))
        ids = self.open.pop(writer).ids
        rolls_back = data.draw(st.integers(0, 5)) == 0
        (self.gone if rolls_back else self.visible).update(ids)

    def _draw(self, writer: str, key: str) -> None:
        self.last_id += 1
        self.key_of[self.last_id] = key
        self.open[writer].keys.add(key)
        self.open[writer].ids.append(self.last_id)

    # The relay

    @rule()
    def look_at_last_id(self) -> None:
        self.last_seen = self.last_id

    @precondition(lambda self: self.last_seen is not None)
    @rule()
    def look_at_writers(self) -> None:
        assert self.last_seen is not None
        self.look = self.horizon.observe(self.last_seen, list(self.open))
        self.last_seen = None
        self.looked_after = self.rows is not None

    @rule()
    def look_at_once(self) -> None:
        self.look_at_last_id()
        self.look_at_writers()

    @precondition(lambda self: self.watched is None)
    @rule()
    def fetch_at_once(self) -> None:
        self.look_at_once()
        self.begin_fetch()
        self.read([3])
        self.look_at_once()
        self.accept()

    @precondition(lambda self: self.look is not None and self.watched is None)
    @rule()
    def begin_fetch(self) -> None:
        assert self.look is not None
        self.based_on = self.look
        self.lane.begin_fetch(self.look)
        self.watched = self.lane.watched(self.look)

    @precondition(lambda self: self.watched is not None and self.rows is None)
    @rule(
        limits=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        most_ids=st.sampled_from([1, 2, 5, FAR]),
    )
    def read(self, limits: list[int], most_ids: int = FAR) -> None:
        self.limits = dict(zip(self.lane.buckets, cycle(limits), strict=False))
        self.ends = self.lane.ends(most_ids)
        self.looked_after = False
        # A look that began before this read must not be the one that judges it.
        self.last_seen = None
        self.rows = []
        for number, bucket in self.lane.buckets.items():
            found = [
                row
                for row in sorted(self.visible - self.sent)
                if bucket_of(self.key_of[row]) == number
                and bucket.cursor < row <= self.ends[number]
            ]
            self.rows += [
                (row, number, 0, b"t", self.key_of[row].encode(), b"", b"")
                for row in found[: self.limits[number]]
            ]

    @precondition(lambda self: self.rows == [])
    @rule(most_ids=st.sampled_from([1, 3, FAR]))
    def pass_a_gap(self, most_ids: int) -> None:
        """What a read after that which found nothing says of the ids above it."""
        self.looked_after = False
        self.last_seen = None
        above = min(self.ends.values())
        first = min((row for row in self.visible if row > above), default=above + most_ids + 1)
        empty = min(first - 1, above + most_ids)
        self.ends = {number: max(end, empty) for number, end in self.ends.items()}

    @precondition(lambda self: self.rows is not None and (self.looked_after or not self.watched))
    @rule()
    def accept(self) -> None:
        assert self.rows is not None
        assert self.watched is not None
        assert self.look is not None
        rows, self.rows, watched, self.watched = self.rows, None, self.watched, None
        if watched and not watched <= self.look.floors.keys():
            return
        fresh = self.lane.accept(rows, self.limits, self.ends, self.based_on)
        self.published += [row[0] for row in fresh]

    @precondition(lambda self: len(self.sent) < len(self.published))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from([row for row in self.published if row not in self.sent]))
        self.sent.add(row)
        self.lane.acknowledged.append(row)

    @precondition(lambda self: self.watched is None)
    @rule()
    def store_low_waters(self) -> None:
        self.lane.raise_low_waters()
        for number, bucket in self.lane.buckets.items():
            below = {
                row
                for row, key in self.key_of.items()
                if bucket_of(key) == number and row <= bucket.low_water
            }
            assert below <= self.sent | self.gone

    @precondition(lambda self: self.watched is None)
    @rule()
    def start_over(self) -> None:
        """Throw away nothing that is published: only reading begins again."""
        self.lane.reset(set(self.published) - self.sent)

    # What must hold

    @invariant()
    def each_key_is_published_in_order_and_once(self) -> None:
        assert len(self.published) == len(set(self.published))
        for key in KEYS:
            ids = [row for row in self.published if self.key_of[row] == key]
            assert ids == sorted(ids)

    def teardown(self) -> None:
        for transaction in self.open.values():
            self.visible.update(transaction.ids)
        self.open.clear()
        if self.rows is not None:
            self.look_at_last_id()
            self.look_at_writers()
            self.accept()
        self.watched = self.rows = None
        for _ in range(self.last_id + 2):
            self.look_at_last_id()
            self.look_at_writers()
            self.begin_fetch()
            self.read([3])
            self.look_at_last_id()
            self.look_at_writers()
            self.accept()
            self.each_key_is_published_in_order_and_once()
        assert set(self.published) == self.visible

    def commit(self, writer: str) -> None:
        self.visible.update(self.open.pop(writer).ids)


TestLateCommits = LateCommits.TestCase
TestLateCommits.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)


def with_an_open_writer_overtaken() -> tuple[LateCommits, str]:
    """Id 1 of key a0 is open, id 2 of another key is published and the cursor is past both."""
    world = LateCommits()
    world.look_at_once()
    world.begin("a0")
    (writer,) = world.open
    world.write_and_commit("b0")
    world.fetch_at_once()
    assert world.published == [2]
    assert world.lane.buckets[0].cursor == 2
    return world, writer


def test_a_late_commit_is_published_before_its_key_s_later_rows() -> None:
    world, writer = with_an_open_writer_overtaken()
    world.commit(writer)
    world.write_and_commit("a0")
    world.fetch_at_once()
    assert world.published == [2, 1, 3]


def test_a_commit_between_look_and_read_makes_the_read_void() -> None:
    world, writer = with_an_open_writer_overtaken()
    world.look_at_once()
    world.begin_fetch()
    world.commit(writer)
    world.write_and_commit("a0")
    world.read([3])
    world.look_at_once()
    world.accept()
    assert world.published == [2]
    world.fetch_at_once()
    assert world.published == [2, 1, 3]


def test_other_keys_go_on_beside_a_writer_that_stays_open() -> None:
    world, writer = with_an_open_writer_overtaken()
    world.fetch_at_once()
    for expected in range(3, 20):
        world.write_and_commit("b0")
        world.fetch_at_once()
        assert world.published[-1] == expected
        assert world.lane.buckets[0].cursor == expected
        world.lane.raise_low_waters()
        assert world.lane.buckets[0].low_water == 0
    world.commit(writer)
    world.fetch_at_once()
    assert world.published[-1] == 1


def test_a_writer_seen_first_has_drawn_only_ids_after_the_look_before() -> None:
    horizon = Horizon()
    assert horizon.observe(10, ["1/1"]).floors == {"1/1": 0}
    assert horizon.observe(15, ["1/1", "2/7"]).floors == {"1/1": 0, "2/7": 10}
    assert horizon.observe(20, ["2/7"]).floors == {"2/7": 10}


def test_the_floor_of_what_ended_is_where_to_read_again() -> None:
    look = Look(20, {"1/1": 5, "2/7": 12})
    assert look.ended(Look(30, {"1/1": 5, "2/7": 12})) is None
    assert look.ended(Look(30, {"1/1": 5})) == 12
    assert look.ended(Look(30)) == 5


def test_a_reset_keeps_what_was_delivered_and_reads_the_rest_again() -> None:
    lane = Lane.claimed(0, [Lease(0, 1, 3, 0)], 0.0, 2)
    rows = [(n, 0, 0, b"t", b"k", b"", b"") for n in (4, 5, 6)]
    chunk = lane.accept(rows, {0: 10}, lane.ends(FAR), Look(6))
    lane.offer(chunk)
    generation = lane.generation

    lane.reset([4])

    assert lane.taken == {4}
    assert lane.buckets[0].cursor == 3
    assert lane.generation == generation + 1
    assert lane.chunks.empty()


def test_a_held_key_keeps_the_low_water_mark_below_its_dead_row() -> None:
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)
    lane.accept([], {0: 10}, lane.ends(FAR), Look(50))
    lane.held = {0: 20}
    lane.raise_low_waters()
    assert lane.buckets[0].low_water == 19


def test_what_is_marked_and_not_forgotten_yet_survives_a_reset() -> None:
    """A fetch that is on its way may still see it as pending."""
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)
    lane.taken, lane.acknowledged = {5, 6, 7}, [5]
    lane.reset({6})
    assert (lane.taken, lane.unacknowledged) == ({5, 6}, 1)


def test_marks_and_holds_only_go_down_when_others_say_so() -> None:
    lane = Lane.claimed(0, [Lease(0, 1, 10, 0)], 0.0, 2)
    lane.rewound(0, 12, 1)
    assert lane.buckets[0].low_water == 10
    lane.go_back(3)
    assert lane.buckets[0].cursor == 10
    for number in (8, 9):
        lane.hold(Row(number, 0, 0, b"t", b"k", b"", b""))
    assert lane.held == {0: 8}


def test_the_next_limit_follows_the_size_of_the_rows() -> None:
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 2)
    small = [(1, 0, 0, b"t", b"k", b"x" * 99, b"")]
    for _ in range(10):
        lane.learn_size(small, 10_000, 125)
    assert lane.limit == 100
    lane.learn_size([(1, 0, 0, b"t", b"k", b"x" * 50_000, b"")], 10_000, 125)
    assert lane.limit == 1
    lane.limit = 100
    lane.learn_size([(1, 0, 0, b"t", b"k", b"x", b"h" * 998)], 10_000, 125)
    assert lane.limit == 10


def test_a_lane_needs_no_running_loop() -> None:
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 1)
    assert isinstance(lane.renewed, asyncio.Event)
