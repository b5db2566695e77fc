"""What bounds a layer: from the counts what it could reach, from measurements why it does not."""

from __future__ import annotations

import pytest

from pointwise.costs import Count
from pointwise.costs.machine import Machine
from pointwise.costs.roofline import LayerTimes, limit, verdict
from pointwise.timing import Times

# 100 operations per nanosecond; 10 bytes, or 50 where they fit into 1 MB.
TOY = Machine("a toy", 2, 100.0, 10.0, caches=((2**20, 50.0),))


def count(operations: int, read: int, padding: int = 0) -> Count:
    half = operations // 2
    return Count(
        multiplications=half,
        multiply_adds=half,
        additions=half,
        on_padding=padding,
        bytes_read=read,
    )


def seen(time, one_thread=None, double=None, again=None, floor=0.0, rounds=8) -> LayerTimes:
    passes = (time, one_thread, double, again)
    return LayerTimes(*(None if x is None else Times((x,) * rounds) for x in passes), floor)


def test_the_limit_is_the_longer_of_arithmetic_and_memory():
    compute = limit(count(100_000_000, 1000), TOY)
    assert (compute.milliseconds, compute.bound) == (1.0, "arithmetic")
    fits = limit(count(1000, 1_000_000), TOY)
    assert (fits.milliseconds, fits.bound) == (0.02, "cache")
    far = limit(count(1000, 10_000_000), TOY)
    assert (far.milliseconds, far.bound) == (1.0, "memory")
    without = limit(count(1000, 1_000_000), Machine("a toy", 2, 100.0, 10.0))
    assert (without.milliseconds, without.bound) == (0.1, "memory")


def test_products_with_padding_are_not_asked_for():
    assert (
        limit(count(100, 1, padding=25), TOY).arithmetic
        == 0.5 * limit(count(100, 1), TOY).arithmetic
    )


WORK = count(100_000_000, 100_000)  # 1 ms


@pytest.mark.parametrize(
    ("work", "measured", "bound", "words"),
    [
        (WORK, seen(1.25), "arithmetic", "at 80 % of the multiply-add rate"),
        (count(1000, 1_000_000), seen(0.025), "cache", "moves 40 GB/s, 80 % of what cache gives"),
        (count(1000, 10**7), seen(1.25), "memory", "moves 8 GB/s, 80 % of what memory gives"),
        # Far from the cache's rate, but near memory's.
        (count(1000, 10**6), seen(0.125), "memory", "moves 1 MB at 8 GB/s, where memory gives 10"),
        (WORK, seen(4.0, again=1.0), "cold", "run again at once, with its data in cache, it"),
        (WORK, seen(4.0, one_thread=4.8), "threads", "2 threads are 1.20 times as fast as one"),
        (WORK, seen(4.0, double=4.4), "call", "twice the batch takes 1.10 times as long"),
        (WORK, seen(4.0, floor=3.0), "call", "3000 of its 4000 µs are a call that does nothing"),
        (WORK, seen(4.0), "kernel", "the kernel's own instructions, at 25 of 100 GFLOP/s"),
        # None of these is much.
        (WORK, seen(4.0, 7.5, 7.6, 3.6, 0.1), "kernel", "little is lost to calls, threads or cold"),
        # A call would cost as much again: this is what was spent on fetching weights.
        (WORK, seen(4.0, double=5.0, again=1.6), "cold", "it takes 1.6 ms instead of 4"),
        # The largest loss is the one that is named.
        (WORK, seen(4.0, 4.8, 7.0, 1.0, 0.1), "cold", "instead of 4"),
        (WORK, seen(4.0, 4.1, 7.0, 2.5, 0.1), "threads", "1.02 times as fast"),
        (Count(), seen(1.0), "call", "computes nothing itself"),
        (WORK, seen(0.0), "call", "computes nothing itself"),
    ],
)  # fmt: skip
def test_the_reason_is_what_was_measured(work, measured, bound, words):
    found, reason = verdict(work, measured, TOY)
    assert found == bound
    assert words in reason


SHORT = count(1_000_000, 1000)  # 0.01 ms


@pytest.mark.parametrize(
    ("work", "measured", "words"),
    [
        # Fewer rounds than an interval needs.
        (WORK, seen(4.0, again=1.0, rounds=5), "5 rounds cannot tell why; 6 or more can"),
        (WORK, seen(4.0, again=1.0, rounds=1), "1 round cannot tell why"),
        # A tenth of the speed on two threads is not the layer's doing.
        (WORK, seen(40.0, one_thread=4.0), "one thread took 4 ms and all together 40 ms: another"),
    ],
)  # fmt: skip
def test_what_may_be_chance_is_no_reason(work, measured, words):
    bound, reason = verdict(work, measured, TOY)
    assert bound == "unclear"
    assert words in reason
    assert "times as fast as one" not in reason


def test_times_that_scatter_are_no_reason():
    times = Times((4.0, 1.0, 5.0, 2.0, 6.0, 0.9, 4.0, 4.0))
    again = Times((1.0, 4.0, 2.0, 5.0, 1.0, 4.0, 2.0, 1.0))
    bound, reason = verdict(WORK, LayerTimes(times, None, None, again, 0.0), TOY)
    assert bound == "unclear"
    assert "its times vary too much to tell why: 0.9 ms to 5.65 ms on the same work" in reason


def test_microseconds_may_be_faster_on_one_thread():
    bound, reason = verdict(SHORT, seen(0.05, one_thread=0.03), TOY)
    assert bound == "threads"
    assert reason == "one thread takes 0.60 times as long as 2: there is little to share"


def test_a_search_is_named_as_such():
    bound, reason = verdict(WORK, seen(9.0, again=2.0), TOY, searches=True)
    assert bound == "search"
    assert (
        reason
        == "finds neighbours or voxels, which is not counted; once they are known, it takes 2 ms"
    )
    assert verdict(WORK, seen(9.0), TOY, searches=True)[1].endswith("not counted")
    assert verdict(WORK, seen(1.2), TOY, searches=True)[0] == "arithmetic"
