"""Writers of the same keys cannot wait for each other: everybody takes locks in one order."""

from hypothesis import example, given
from hypothesis import strategies as st

from lethe_outbox.message import BUCKETS
from lethe_outbox.writing import SEPARATE_KEY_LOCKS, Locks


@example({0, 2**30})
@given(st.sets(st.integers(0, 2**31 - 1), min_size=1, max_size=2 * SEPARATE_KEY_LOCKS))
def test_locks_of_any_keys_are_taken_in_ascending_order_and_cover_their_buckets(
    hashes: set[int],
) -> None:
    locks = Locks.of(hashes)
    assert list(locks.shared) == sorted(set(locks.shared))
    assert list(locks.exclusive) == sorted(set(locks.exclusive))
    assert {one % BUCKETS for one in hashes} <= {*locks.shared, *locks.exclusive}
