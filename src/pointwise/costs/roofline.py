"""How near a layer comes to what the machine can do, and what keeps it from there.

The roofline: arithmetic takes at least its operations over the machine's rate of multiply-adds, and
memory at least the bytes over the bandwidth of where so many bytes fit. The longer of the two is
the least time a layer can take. Source: Williams, Waterman, Patterson, "Roofline", CACM 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

from pointwise.costs.count import Count
from pointwise.costs.machine import Machine
from pointwise.messages import duration, rounded
from pointwise.timing import FEWEST, Times, ratio

FAR = 0.5
"""Below this share of its roofline a layer is far from it."""
_MUCH = 0.3  # of its time
_WORTH_SHARING = 0.1  # milliseconds on one thread; more threads are never slower with that


@dataclass(frozen=True)
class Limit:
    """The least milliseconds for a count, by arithmetic and by memory."""

    arithmetic: float
    memory: float
    place: str  # where the bytes come from: "cache" or "memory"

    @property
    def milliseconds(self) -> float:
        return max(self.arithmetic, self.memory)

    @property
    def bound(self) -> str:
        """What the limit is made of: "arithmetic", "cache" or "memory"."""
        return "arithmetic" if self.arithmetic >= self.memory else self.place


def limit(count: Count, machine: Machine) -> Limit:
    """The roofline of a count. Products with the zeros of a padding need not be computed."""
    operations = count.operations - 2 * count.on_padding
    rate = machine.gbs(count.bytes)
    stays = bool(machine.caches) and count.bytes <= machine.caches[-1][0]
    return Limit(
        max(0, operations) / (1e6 * machine.fma_gflops),
        count.bytes / (1e6 * rate),
        "cache" if stays else "memory",
    )


@dataclass(frozen=True)
class LayerTimes:
    """A layer's times in the passes of ``measure``; None where there was none."""

    times: Times
    one_thread: Times | None
    double: Times | None
    again: Times | None
    floor: float  # milliseconds of a call, or a launch, that does nothing

    @property
    def milliseconds(self) -> float:
        return self.times.median


@dataclass(frozen=True)
class Loss:
    """A share of the time that a measurement says is lost; ``sure`` if chance does not do that."""

    share: float
    sure: bool
    words: str


def verdict(
    count: Count, seen: LayerTimes, machine: Machine, searches: bool = False
) -> tuple[str, str]:
    """What bounds a layer, in a word and in a sentence, from what was measured.

    Near its roofline it is what the roofline is made of. Far from it, the largest of what was
    measured to cost it time: ``memory`` (its bytes come at the memory's rate, not a cache's),
    ``cold`` (it is faster when run again at once), ``threads`` (one thread is nearly as fast as
    all), ``call`` (time that does not grow with the work), or if none of these is much, the
    ``kernel`` itself. What seems much, and may be chance, makes it ``unclear``. A layer that
    ``searches`` spends its time on that: on finding neighbours or voxels, which no roofline counts.
    """
    time = seen.milliseconds
    least = limit(count, machine)
    if time <= 0 or not (count.operations or count.bytes):
        return (
            "call",
            "computes nothing itself: Python, checks and memory given back between layers",
        )
    if least.milliseconds / time >= FAR:
        return least.bound, _near(count, seen, least, machine)
    if searches:
        again = seen.again
        found = "" if again is None else f"; once they are known, it takes {duration(again.median)}"
        return "search", f"finds neighbours or voxels, which is not counted{found}"
    from_memory = count.bytes / (1e6 * machine.bandwidth_gbs) / time
    if from_memory >= FAR:
        gbs = count.bytes / (1e6 * time)
        return "memory", (
            f"moves {rounded(count.bytes / 1e6, 2)} MB at {gbs:.0f} GB/s, where memory gives "
            f"{machine.bandwidth_gbs:.0f}"
        )
    losses = {name: loss for name, loss in _losses(seen, machine).items() if loss.share >= _MUCH}
    sure = {name: loss for name, loss in losses.items() if loss.sure}
    if sure:
        name = max(sure, key=lambda each: sure[each].share)
        return name.partition(" ")[0], sure[name].words
    if losses:
        return "unclear", _unclear(seen)
    return "kernel", (
        "little is lost to calls, threads or cold caches: it is the kernel's own instructions, "
        f"at {count.operations / (1e6 * time):.0f} of {machine.fma_gflops:.0f} GFLOP/s"
    )


def _unclear(seen: LayerTimes) -> str:
    if seen.one_thread is not None and ratio(seen.one_thread, seen.times).is_below:
        return (
            f"one thread took {duration(seen.one_thread.median)} and all together"
            f" {duration(seen.milliseconds)}: another program had a processor"
        )
    rounds = len(seen.times.milliseconds)
    if rounds < FEWEST:
        return f"{rounds} round{'s' * (rounds > 1)} cannot tell why; {FEWEST} or more can"
    return (
        f"its times vary too much to tell why: {duration(seen.times.min)} to"
        f" {duration(seen.times.p95)} on the same work"
    )


def _near(count: Count, seen: LayerTimes, least: Limit, machine: Machine) -> str:
    share = 100 * least.milliseconds / seen.milliseconds
    if least.bound == "arithmetic":
        return f"at {share:.0f} % of the multiply-add rate"
    gbs = count.bytes / (1e6 * seen.milliseconds)
    return f"moves {gbs:.0f} GB/s, {share:.0f} % of what {least.place} gives for so many bytes"


def _losses(seen: LayerTimes, machine: Machine) -> dict[str, Loss]:
    """What measurements say is lost of the time, and how to say it."""
    time, found = seen.milliseconds, {}
    found["call"] = Loss(
        min(1.0, seen.floor / time),
        True,  # the median of hundreds of calls
        f"{1e3 * seen.floor:.0f} of its {1e3 * time:.0f} µs are a call that does nothing",
    )
    if seen.double is not None:
        growth = ratio(seen.double, seen.times)
        share = min(1.0, max(0.0, 2 - growth.value))
        if seen.again is not None:  # what a call itself takes, it takes again
            share = min(share, ratio(seen.again, seen.times).value)
        found["call and weights"] = Loss(
            share,
            growth.high < 2,
            f"twice the batch takes {growth} times as long: much of it is spent once for each call,"
            " on the call itself and on weights",
        )
    if seen.again is not None:
        again = ratio(seen.again, seen.times)
        found["cold"] = Loss(
            max(0.0, 1 - again.value),
            again.is_below,
            f"run again at once, with its data in cache, it takes {duration(seen.again.median)}"
            f" instead of {duration(time)}",
        )
    if seen.one_thread is not None and machine.threads > 1:
        found["threads"] = _threads(seen.one_thread, seen.times, machine.threads)
    return found


def _threads(one: Times, times: Times, threads: int) -> Loss:
    """What is lost because more threads are not so many times as fast.

    That one is faster can be, of a few microseconds. Of more, it says that they were not all free.
    """
    gain = ratio(one, times)
    sure = gain.high < threads
    words = f"{threads} threads are {gain} times as fast as one"
    if gain.is_below:
        sure = sure and one.median < _WORTH_SHARING
        words = f"one thread takes {gain} times as long as {threads}: there is little to share"
    return Loss(max(0.0, 1 - gain.value / threads), sure, words)
