"""What the machine can do: its fused multiply-adds, the bandwidth of its memory and of its caches.

All are measured with the threads that everything else uses, right beside what is compared with
them; the data sheet's numbers are of no use on a shared or a virtual machine.
"""

# mypy: disable-error-code="call-arg, var-annotated"
# Numba's intrinsics are called without the typing context that their definition names first.

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pointwise.engine.cpu.isa import ISA, processor
from pointwise.engine.cpu.launch import kernel, launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import REGISTER_BYTES, broadcast, fma, load, peek, store

CHAINS = 12  # two units of four cycles' latency need eight; sixteen registers hold no more
_LANES = REGISTER_BYTES // 4
_SMALLEST_CACHE = 32 * 2**20


@dataclass(frozen=True)
class Machine:
    """What the machine can do at most, with the threads in use."""

    cpu: str  # its name and ISA
    threads: int
    fma_gflops: float  # 10⁹ float32 operations per second, a fused multiply-add being two
    bandwidth_gbs: float  # 10⁹ bytes per second to and from memory
    # (bytes, 10⁹ bytes per second) of what stays in a cache, the small sizes first
    caches: tuple[tuple[int, float], ...] = ()

    def gbs(self, size: float) -> float:
        """10⁹ bytes per second at most, for a job that moves the same ``size`` bytes every time.

        Between two measured sizes it is the smaller one's rate, since a limit must not be too low.
        """
        if not self.caches or size > self.caches[-1][0]:
            return self.bandwidth_gbs
        below = max([most for most, _ in self.caches if most <= size], default=0)
        return max(rate for most, rate in self.caches if most >= below)


_CHAINS = Layout("Chains", "*numbers steps row")
"""The factor, then each program's chains, a ``row`` (a register's bytes) each."""

_STREAM = Layout("Stream", "*a *b *c repeats size row")
"""Two or three arrays, of each of which a program has ``size`` bytes of its own."""


@kernel
def _multiply_add(arguments, program, thread):
    """``steps`` rounds of twelve independent chains; chain i starts from its own register."""
    own = _CHAINS(arguments)
    row = own.row
    like = peek(own.numbers, np.float32(0))
    here = own.numbers + (1 + program) * CHAINS * row
    a = broadcast(like)
    c0, c1, c2 = load(here, like), load(here + row, like), load(here + 2 * row, like)
    c3, c4 = load(here + 3 * row, like), load(here + 4 * row, like)
    c5, c6 = load(here + 5 * row, like), load(here + 6 * row, like)
    c7, c8 = load(here + 7 * row, like), load(here + 8 * row, like)
    c9, c10 = load(here + 9 * row, like), load(here + 10 * row, like)
    c11 = load(here + 11 * row, like)
    for _ in range(own.steps):
        c0, c1, c2, c3 = fma(c0, a, a), fma(c1, a, a), fma(c2, a, a), fma(c3, a, a)
        c4, c5, c6, c7 = fma(c4, a, a), fma(c5, a, a), fma(c6, a, a), fma(c7, a, a)
        c8, c9, c10, c11 = fma(c8, a, a), fma(c9, a, a), fma(c10, a, a), fma(c11, a, a)
    # Stored, so that the compiler cannot leave them out.
    store(here, c0)
    store(here + row, c1)
    store(here + 2 * row, c2)
    store(here + 3 * row, c3)
    store(here + 4 * row, c4)
    store(here + 5 * row, c5)
    store(here + 6 * row, c6)
    store(here + 7 * row, c7)
    store(here + 8 * row, c8)
    store(here + 9 * row, c9)
    store(here + 10 * row, c10)
    store(here + 11 * row, c11)


def run_chains(steps: int, programs: int, factor: float = 0.5) -> np.ndarray:
    """``[programs, 12, lanes]`` float32: each x of ``starts`` after ``steps`` of x·f + f."""
    numbers = np.empty((1 + programs) * CHAINS * _LANES, dtype=np.float32)
    numbers[: CHAINS * _LANES] = factor
    numbers[CHAINS * _LANES :] = starts(programs).ravel()
    arguments = _CHAINS(numbers=numbers, steps=steps, row=REGISTER_BYTES)
    launch(_multiply_add, arguments, programs)
    return numbers[CHAINS * _LANES :].reshape(programs, CHAINS, _LANES)


def starts(programs: int) -> np.ndarray:
    """What the chains start from: all different, or the compiler would merge them."""
    count = programs * CHAINS * _LANES
    return np.linspace(1, 2, count, dtype=np.float32).reshape(programs, CHAINS, _LANES)


def fma_gflops(seconds: float = 0.5) -> float:
    """10⁹ float32 operations per second, on all threads; an addition and a product are two."""
    programs, steps = 8 * threads(), 1 << 17
    operations = 2 * CHAINS * _LANES * programs * steps
    return operations / _best(lambda: run_chains(steps, programs), seconds) / 1e9


@kernel
def _scale(arguments, program, thread):
    """STREAM's scale, ``b = k·a``, ``repeats`` times on a program's own part of both arrays."""
    own = _STREAM(arguments)
    size, row = own.size, own.row
    a, b = own.a + program * size, own.b + program * size
    like = np.float32(0)
    k = broadcast(np.float32(3))
    for _ in range(own.repeats):
        for at in range(0, size, 4 * row):
            x0, x1 = load(a + at, like), load(a + at + row, like)
            x2, x3 = load(a + at + 2 * row, like), load(a + at + 3 * row, like)
            store(b + at, x0 * k)
            store(b + at + row, x1 * k)
            store(b + at + 2 * row, x2 * k)
            store(b + at + 3 * row, x3 * k)


@kernel
def _triad(arguments, program, thread):
    """STREAM's triad, ``c = a + k·b``, likewise."""
    own = _STREAM(arguments)
    size, row = own.size, own.row
    a, b, c = own.a + program * size, own.b + program * size, own.c + program * size
    like = np.float32(0)
    k = broadcast(np.float32(3))
    for _ in range(own.repeats):
        for at in range(0, size, 2 * row):
            x0, x1 = load(a + at, like), load(a + at + row, like)
            y0, y1 = load(b + at, like), load(b + at + row, like)
            store(c + at, fma(k, y0, x0))
            store(c + at + row, fma(k, y1, x1))


def cache_gbs(size: int, seconds: float = 0.02) -> float:
    """10⁹ bytes per second of the threads together, on the same ``size`` bytes again and again.

    Each thread has a part of its own; the better of STREAM's scale and triad.
    """
    team, best = threads(), 0.0
    for stream, arrays in ((_scale, 2), (_triad, 3)):
        step = 4 * REGISTER_BYTES
        part = max(1, size // (arrays * team * step)) * step  # bytes of one array, of one thread
        apart = team * part + 17 * 64  # not a multiple of a page, so that no two arrays collide
        buffer = torch.ones(arrays * apart // 4)
        a, b, *rest = (buffer[number * apart // 4 :] for number in range(arrays))
        c = rest[0] if rest else None
        moved = arrays * team * part
        repeats = max(1, 2**26 // moved)  # some milliseconds in a cache
        arguments = _STREAM(a=a, b=b, c=c, repeats=repeats, size=part, row=REGISTER_BYTES)
        taken = _best(partial(launch, stream, arguments, team), seconds / 2)
        best = max(best, repeats * moved / taken / 1e9)
    return best


def caches(seconds: float = 0.02) -> tuple[tuple[int, float], ...]:
    """(bytes, 10⁹ bytes per second) from 128 KiB to the last cache, two sizes for each doubling."""
    sizes = [base * 2**power for power in range(16, 40) for base in (2, 3)]
    return tuple((size, cache_gbs(size, seconds)) for size in sizes if size <= last_cache())


def bandwidth_gbs(seconds: float = 1.0) -> float:
    """10⁹ bytes per second: the better of STREAM's copy and triad.

    Each array is eight times the last cache. Bytes are counted as STREAM does, each array once.
    """
    size = 8 * last_cache()
    a, b, c = (torch.ones(size // 4) for _ in range(3))
    copy = 2 * size / _best(lambda: a.copy_(b), seconds / 2)
    triad = 3 * size / _best(lambda: torch.add(b, c, alpha=3.0, out=a), seconds / 2)
    return max(copy, triad) / 1e9


def last_cache() -> int:
    """Bytes of the largest cache that Linux reports, or 32 MB where it reports less or nothing."""
    found = [_SMALLEST_CACHE]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text(encoding="ascii").strip()
        if text[-1:] in "KM" and text[:-1].isdigit():
            found.append(int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]])
    return max(found)


def _best(work: Callable[[], object], seconds: float) -> float:
    """The shortest of as many runs as fit into ``seconds``, three at least."""
    work()
    best, count, end = float("inf"), 0, time.perf_counter() + seconds
    while count < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        count += 1
    return best


def cpu_name() -> str:
    """What the processor calls itself, and the instructions that kernels use of it."""
    name = processor() or platform.processor() or platform.machine()
    with suppress(OSError):  # Linux on Arm has no line with a name
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name} ({ISA.title})"


def measured(quick: bool = False, with_caches: bool = False) -> Machine:
    """Measures this machine, which takes about two seconds, and one more with its caches."""
    seconds = 0.05 if quick else 1.0
    rates = caches(seconds / 50) if with_caches else ()
    return Machine(cpu_name(), threads(), fma_gflops(seconds), bandwidth_gbs(seconds), rates)


def threads_of(machine: Machine) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{machine.threads} thread" + ("" if machine.threads == 1 else "s")


def better(one: Machine, other: Machine) -> Machine:
    """The higher of two measurements: a limit is what can be reached at all."""
    return Machine(
        one.cpu,
        one.threads,
        max(one.fma_gflops, other.fma_gflops),
        max(one.bandwidth_gbs, other.bandwidth_gbs),
        tuple(map(max, one.caches, other.caches)),  # the sizes are the same
    )
