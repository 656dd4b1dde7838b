from __future__ import annotations

import heapq
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.throttle import TokenBucket


def test_bucket_burst_goes_at_once() -> None:
    bucket = TokenBucket(100, 50)

    assert [bucket.take(25, 0.0), bucket.take(25, 0.0)] == [0.0, 0.0]


def test_bucket_piece_larger_than_burst_is_paid_by_waiting() -> None:
    bucket = TokenBucket(100, 50)

    assert bucket.take(250, 0.0) == 2.0


def test_bucket_readers_wait_for_the_debt_of_all() -> None:
    bucket = TokenBucket(100, 100)

    assert [bucket.take(100, 0.0) for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]


def test_bucket_pause_fills_up_to_burst_only() -> None:
    bucket = TokenBucket(100, 50)
    bucket.take(50, 0.0)

    assert bucket.take(150, 1e9) == 1.0


def test_bucket_nothing_taken_in_debt_waits_for_the_rest() -> None:
    bucket = TokenBucket(100, 100)
    bucket.take(300, 0.0)

    assert bucket.take(0, 1.5) == 0.5


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-5, 1), (1, 0)])
def test_bucket_without_rate_or_burst_is_refused(rate: int, burst: int) -> None:
    with pytest.raises(InvalidInputError, match=f"rate {rate} or burst {burst}"):
        TokenBucket(rate, burst)


def test_bucket_clock_that_stands_still_gives_finite_waits() -> None:
    bucket = TokenBucket(100, 100)

    assert [bucket.take(100, 7.0) for _ in range(3)] == [0.0, 1.0, 2.0]


def test_bucket_clock_that_jumps_far_back_goes_on_from_there() -> None:
    bucket = TokenBucket(100, 100)
    bucket.take(300, 1e6)

    assert [bucket.take(0, 5.0), bucket.take(0, 6.0), bucket.take(0, 7.0)] == [2.0, 1.0, 0.0]


def test_bucket_threads_that_read_the_clock_out_of_order_get_no_second_twice() -> None:
    bucket = TokenBucket(100, 100)
    bucket.take(1_100, 0.0)

    waits = [bucket.take(0, now) for now in (1.0, 0.5, 1.0, 0.2, 1.0)]

    assert waits == [9.0] * 5


@settings(deadline=None)
@given(
    rate=st.integers(1, 10_000),
    burst=st.integers(1, 50_000),
    readers=st.lists(
        st.lists(st.tuples(st.integers(0, 5_000), st.floats(0, 20)), min_size=1, max_size=12), min_size=1, max_size=6
    ),
)
def test_bucket_any_interval_holds_burst_rate_and_a_piece(
    rate: int, burst: int, readers: list[list[tuple[int, float]]]
) -> None:
    # Each reader idles, reads a piece, waits as told, reads the next; the world is played in the order of its clock.
    bucket = TokenBucket(rate, burst)
    read: list[tuple[float, int]] = []
    released: list[tuple[float, int]] = []
    turns = [(pieces[0][1], number, 0) for number, pieces in enumerate(readers)]
    heapq.heapify(turns)
    while turns:
        now, number, step = heapq.heappop(turns)
        count = readers[number][step][0]
        go_on = now + bucket.take(count, now)
        read.append((now, count))
        released.append((go_on, count))
        if step + 1 < len(readers[number]):
            heapq.heappush(turns, (go_on + readers[number][step + 1][1], number, step + 1))

    largest = max(count for pieces in readers for count, _ in pieces)
    assert_bounded(released, rate, burst + largest)
    assert_bounded(read, rate, burst + largest * len(readers))


def assert_bounded(events: list[tuple[float, int]], rate: int, at_once: int) -> None:
    """Over any interval [a, b]: bytes ≤ at_once + rate·(b-a). Only intervals from event to event can be worst."""
    events = sorted(events)
    for first in range(len(events)):
        total = 0
        for moment, count in events[first:]:
            total += count
            assert total <= at_once + rate * (moment - events[first][0]) + 1e-3


@given(
    clock=st.lists(st.floats(0, 1e6), min_size=2, max_size=40),
    counts=st.lists(st.integers(0, 1_000), min_size=40, max_size=40),
)
def test_bucket_any_clock_gives_waits_of_the_debt_at_most(clock: list[float], counts: list[int]) -> None:
    bucket = TokenBucket(10, 100)
    taken = 0

    for now, count in zip(clock, counts, strict=False):
        wait = bucket.take(count, now)
        taken += count

        assert 0.0 <= wait <= taken / 10


def test_bucket_threads_together_keep_to_the_rate() -> None:
    # Real threads on a real clock; the bound is on bytes for the time it really took, so a slow machine passes too.
    rate, burst, piece, readers = 2_000_000, 100_000, 20_000, 8
    bucket = TokenBucket(rate, burst)
    begin = time.monotonic()

    def reader(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - no secret
        for _ in range(20):
            time.sleep(bucket.take(dice.randrange(piece), time.monotonic()))

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begin

    total = sum(dice.randrange(piece) for dice in map(random.Random, range(readers)) for _ in range(20))
    assert total <= burst + rate * elapsed + piece
