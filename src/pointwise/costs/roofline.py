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

FAR = 0.5
"""Below this share of its roofline a layer is far from it."""
_MUCH = 0.3  # of its time


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
    """A layer's milliseconds in the passes of ``measure``; None where there was none."""

    milliseconds: float
    one_thread: float | None
    double: float | None
    again: float | None
    floor: float  # a call, or a launch, that does nothing


def verdict(
    count: Count, seen: LayerTimes, machine: Machine, searches: bool = False
) -> tuple[str, str]:
    """What bounds a layer, in a word and in a sentence, from what was measured.

    Near its roofline it is what the roofline is made of. Far from it, the largest of what was
    measured to cost it time: ``memory`` (its bytes come at the memory's rate, not a cache's),
    ``cold`` (it is faster when run again at once), ``threads`` (one thread is nearly as fast as
    all), ``call`` (time that does not grow with the work), or if none of these is much, the
    ``kernel`` itself. A layer that ``searches`` spends its time on that: on finding neighbours or
    voxels, which no roofline counts.
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
        found = (
            "" if seen.again is None else f"; once they are known, it takes {duration(seen.again)}"
        )
        return "search", f"finds neighbours or voxels, which is not counted{found}"
    from_memory = count.bytes / (1e6 * machine.bandwidth_gbs) / time
    if from_memory >= FAR:
        gbs = count.bytes / (1e6 * time)
        return "memory", (
            f"moves {rounded(count.bytes / 1e6, 2)} MB at {gbs:.0f} GB/s, where memory gives "
            f"{machine.bandwidth_gbs:.0f}"
        )
    losses = {name: loss for name, loss in _losses(seen, machine).items() if loss[0] >= _MUCH}
    if not losses:
        return "kernel", (
            "little is lost to calls, threads or cold caches: it is the kernel's own instructions, "
            f"at {count.operations / (1e6 * time):.0f} of {machine.fma_gflops:.0f} GFLOP/s"
        )
    name = max(losses, key=lambda each: losses[each][0])
    return name.partition(" ")[0], losses[name][1]


def _near(count: Count, seen: LayerTimes, least: Limit, machine: Machine) -> str:
    share = 100 * least.milliseconds / seen.milliseconds
    if least.bound == "arithmetic":
        return f"at {share:.0f} % of the multiply-add rate"
    gbs = count.bytes / (1e6 * seen.milliseconds)
    return f"moves {gbs:.0f} GB/s, {share:.0f} % of what {least.place} gives for so many bytes"


def _losses(seen: LayerTimes, machine: Machine) -> dict[str, tuple[float, str]]:
    """Shares of the time that measurements say are lost, and how to say it."""
    time, found = seen.milliseconds, {}
    found["call"] = (
        min(1.0, seen.floor / time),
        f"{1e3 * seen.floor:.0f} of its {1e3 * time:.0f} µs are a call that does nothing",
    )
    if seen.double is not None:
        share = min(1.0, max(0.0, 2 - seen.double / time))
        if seen.again is not None:  # what a call itself takes, it takes again
            share = min(share, seen.again / time)
        found["call and weights"] = (
            share,
            f"twice the batch takes {_times(seen.double / time)} as long: much of it is spent once "
            "for each call, on the call itself and on weights",
        )
    if seen.again is not None:
        found["cold"] = (
            max(0.0, 1 - seen.again / time),
            f"run again at once, with its data in cache, it takes {duration(seen.again)} instead "
            f"of {duration(time)}",
        )
    if seen.one_thread is not None and machine.threads > 1:
        ideal = seen.one_thread / machine.threads
        found["threads"] = (
            max(0.0, 1 - ideal / time),
            f"{machine.threads} threads are {_times(seen.one_thread / time)} as fast as one",
        )
    return found


def _times(factor: float) -> str:
    return f"{factor:.1f} times"
