"""One frame for every comparison: shown to agree first, then timed in turns, in one process.

Whoever takes part in a case is one ``Contestant``. Each runs once before anything is timed, and the
case's ``check`` looks at the results: what is not correct is not timed. Then come the rounds, in
each of which every contestant of every case runs once, starting with the next one each round, so
that a machine that warms up or is disturbed is disturbed for all alike.

Who is ``steady`` and quick runs several times back to back for one time, so that a clock's and a
call's overhead do not count, and once before, so that the caches hold its own data, not another's.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from memory import peak_growth, resident_peak
from rich import box
from rich.console import Console
from rich.table import Table

from pointwise.atomic import replacing
from pointwise.cli.progress import bar
from pointwise.costs.machine import Machine
from pointwise.timing import Ratio, Times, Watch, ratio
from pointwise.timing.load import verdict_of
from pointwise.timing.ratio import factor

OURS = "pointwise"
# Who takes longer than this, preparation included, runs in two of the rounds only.
SLOW_SECONDS = 5.0
# Who is steady and takes less than the first repeats until it lasts; less than the second, it warms
# up before.
SHORT_SECONDS, WARM_SECONDS = 0.01, 0.1


@dataclass(frozen=True)
class Contestant:
    """``run`` is timed; ``prepare`` is not, and makes its argument anew before every run.

    With ``alone``, peak memory is that of a whole fresh process (see ``memory.resident_peak``). Who
    is ``steady`` can run again on the same argument, and does so where one run would be too short.
    """

    who: str
    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None
    alone: Callable[[], Callable[[], Any]] | None = None
    steady: bool = False


@dataclass(frozen=True)
class Case:
    """One job and who does it.

    ``check`` gets everyone's results by name, and says what is wrong with them, or None. ``flops``
    and ``bytes`` are what the job needs by its definition, whoever does it; None for no bound.
    """

    name: str
    contestants: Sequence[Contestant]
    check: Callable[[dict[str, Any]], str | None]
    flops: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Row:
    """What was measured of one contestant in one case, a time for each round.

    ``busy`` says why nothing can be concluded from the times; it is empty where all can.
    """

    case: str
    who: str
    times: Times
    share_of_limit: float | None = None
    peak_mb: float | None = None
    busy: str = ""

    @property
    def median_ms(self) -> float:
        return self.times.median

    @property
    def min_ms(self) -> float:
        return self.times.min

    def over(self, other: Row) -> Ratio:
        """How many times as long it takes as another, by the rounds that both took part in."""
        if len(self.times.milliseconds) == len(other.times.milliseconds):
            return ratio(self.times, other.times)
        return Ratio(self.median_ms / other.median_ms, 0.0, math.inf)  # the slow miss rounds

    def record(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What JSON is to say of it; ``ratio`` is its time over that of ours."""
        ours = _ours(self, rows)
        return {
            "case": self.case,
            "who": self.who,
            "median_ms": self.median_ms,
            "min_ms": self.min_ms,
            "p95_ms": self.times.p95,
            "ratio": None if ours is None else self.over(ours).record(),
            "share_of_limit": self.share_of_limit,
            "peak_mb": self.peak_mb,
            "busy": self.busy,
        }


def agree(tolerance: float) -> Callable[[dict[str, Any]], str | None]:
    """A check: everyone's arrays equal the first one's, but for ``tolerance`` times its largest."""

    def check(results: dict[str, Any]) -> str | None:
        first, *others = results
        for who in others:
            pairs = zip(results[first], results[who], strict=True)
            for number, (mine, theirs) in enumerate(pairs):
                mine, theirs = np.asarray(mine), np.asarray(theirs)
                if mine.shape != theirs.shape:
                    return f"{who} gives shape {theirs.shape} where {first} gives {mine.shape}"
                error = np.abs(mine - theirs).max(initial=0)
                allowed = tolerance * np.abs(mine).max(initial=0)
                if not error <= allowed:
                    return (
                        f"{who} differs from {first} by {error:.2g} in result {number}, "
                        f"more than {allowed:.2g}"
                    )
        return None

    return check


def measure(cases: Sequence[Case], rounds: int, console: Console | None = None) -> list[Row]:
    """Checks every case, then times all of them; raises ValueError for results that are wrong."""
    if rounds < 1:
        raise ValueError(f"bench: rounds must be 1 or more, got {rounds}")
    entries = [(case, contestant) for case in cases for contestant in case.contestants]
    peaks: list[float | None] = []
    slow: list[bool] = []
    times: list[list[float]] = [[] for _ in entries]
    with _little_garbage():
        with progress(console, "checking", len(entries)) as advance:
            for case in cases:
                first = check(case)
                for contestant in case.contestants:
                    seconds, peak = _second_run(contestant)
                    peaks.append(peak)
                    slow.append(min(first[contestant.who], seconds) > SLOW_SECONDS)
                    advance()
        gc.collect()
        gc.freeze()  # what compiling has left behind, too
        turns = list(_turns(slow, rounds))
        with progress(console, "timing", len(turns)) as advance:
            spans = [_span(contestant) for _, contestant in entries]
            with Watch() as watch:
                for turn in turns:
                    times[turn].append(_seconds(entries[turn][1], *spans[turn]))
                    advance()
    taken = [Times(tuple(1e3 * each for each in seconds)) for seconds in times]
    busy = watch.busy(*taken)
    return [
        Row(case.name, contestant.who, each, peak_mb=peak, busy=busy)
        for (case, contestant), each, peak in zip(entries, taken, peaks, strict=True)
    ]


def check(case: Case) -> dict[str, float]:
    """Runs everyone once, and returns the seconds that took, preparation included.

    Raises ValueError where the case's check finds something wrong with the results.
    """
    results, seconds = {}, {}
    for one in case.contestants:
        start = time.perf_counter()
        results[one.who] = one.run(one.prepare())
        seconds[one.who] = time.perf_counter() - start
    if reason := case.check(results):
        raise ValueError(f"bench: {case.name} is not timed, since it is not correct: {reason}")
    return seconds


def _second_run(contestant: Contestant) -> tuple[float, float | None]:
    """Seconds, preparation included, and peak MB of a run that no longer compiles anything."""
    start = time.perf_counter()
    if contestant.alone is not None:
        peak = resident_peak(contestant.alone)
    else:
        state = contestant.prepare()
        peak = peak_growth(lambda: contestant.run(state))
    return time.perf_counter() - start, peak


def _span(contestant: Contestant) -> tuple[int, bool]:
    """How many runs one time is taken of, and whether another one comes before."""
    if not contestant.steady:
        return 1, False
    state = contestant.prepare()
    _settle(contestant, state)
    start = time.perf_counter()
    contestant.run(state)
    seconds = time.perf_counter() - start
    repeats = math.ceil(SHORT_SECONDS / max(seconds, 1e-6))
    return repeats, seconds < WARM_SECONDS


# Threads of the one before may go on spinning for a while, and would take the next one's cores.
_REST = 0.1


# Nor do sleeping threads find their cores at once: on some virtual machines the first two parallel
# regions after a rest take several milliseconds each, whoever's they are.
_SETTLE, _MOST = 0.02, 1000


def _settle(contestant: Contestant, state: Any) -> None:
    """Runs that are not timed, for some milliseconds."""
    start = time.perf_counter()
    for _ in range(_MOST):
        contestant.run(state)
        if time.perf_counter() - start >= _SETTLE:
            return


def _seconds(contestant: Contestant, repeats: int, warm: bool) -> float:
    state = contestant.prepare()
    gc.collect()
    time.sleep(_REST)
    if warm:
        _settle(contestant, state)
    start = time.perf_counter()
    for _ in range(repeats - 1):
        contestant.run(state)
    result = contestant.run(state)
    seconds = (time.perf_counter() - start) / repeats
    del result  # freeing it is not part of the work
    return seconds


@contextmanager
def _little_garbage() -> Iterator[None]:
    """What is there already is not looked through again by each ``gc.collect``."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _turns(slow: Sequence[bool], rounds: int) -> Iterator[int]:
    """Whose turn it is, over all rounds; the slow take part in the first and the middle one."""
    count = len(slow)
    for number in range(rounds):
        for place in range(count):
            turn = (number + place) % count
            if not slow[turn] or number in (0, rounds // 2):
                yield turn


def with_limits(rows: Sequence[Row], cases: Sequence[Case], machine: Machine) -> list[Row]:
    """The rows with ``share_of_limit``: the time the machine needs at least, over the median."""
    least = {case.name: least_ms(case, machine) for case in cases}
    return [
        replace(row, share_of_limit=None if limit is None else limit / row.median_ms)
        for row in rows
        for limit in [least[row.case]]
    ]


def least_ms(case: Case, machine: Machine) -> float | None:
    """No implementation can be faster: the larger of the times for arithmetic and for memory."""
    if case.flops is None and case.bytes is None:
        return None
    arithmetic = (case.flops or 0) / (1e6 * machine.fma_gflops)
    memory = (case.bytes or 0) / (1e6 * machine.gbs(case.bytes or 0))
    return max(arithmetic, memory)


def show(rows: Sequence[Row], machine: Machine, console: Console, note: str = "") -> None:
    """Prints the rows, what the machine can do, and what the table's words mean."""
    print_rows(rows, console)
    console.print(
        f"\n{machine.cpu}\n{machine.threads} threads, {machine.fma_gflops:.0f} GFLOP/s, "
        f"{machine.bandwidth_gbs:.1f} GB/s\n"
        f"ratio: time over that of {OURS}, between these with a confidence of 95 %;\n"
        "≈: too few rounds for that; limit: the least time this machine needs, over the\n"
        "median"
    )
    if busy := {row.case: row.busy for row in rows if row.busy}:
        cases = len({row.case for row in rows})
        of = f"In {len(busy)} of {cases} cases: " if len(busy) < cases else ""
        console.print(f"\n{of}{verdict_of(next(iter(busy.values())))}")
    if note:
        console.print(note)


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Prints the rows as a table that fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column("who", overflow="fold")
    for name in ("\nleast", "ms\nmedian", "\n95th", "\nratio", "\nlimit", "peak\nMB"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in rows:
        if last is not None and row.case != last:
            table.add_section()
        table.add_row(
            row.case if row.case != last else "",
            row.who,
            *map(_number, (row.min_ms, row.median_ms, row.times.p95)),
            _over_ours(row, rows),
            "" if row.share_of_limit is None or row.busy else f"{100 * row.share_of_limit:.1f} %",
            "" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
        )
        last = row.case
    console.print(table)


def _ours(row: Row, rows: Sequence[Row]) -> Row | None:
    return next((each for each in rows if (each.case, each.who) == (row.case, OURS)), None)


def _over_ours(row: Row, rows: Sequence[Row]) -> str:
    """The interval of a ratio; the ratio alone where rounds were too few."""
    ours = _ours(row, rows)
    if ours is None or ours is row:
        return ""
    if row.busy:
        return "–"
    found = row.over(ours)
    if not math.isfinite(found.high):
        return f"≈{factor(found.value)}"
    return f"{factor(found.low)}–{factor(found.high)}"


def _number(milliseconds: float) -> str:
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 3
    return f"{milliseconds:,.{digits}f}"


def write(rows: Sequence[Row], machine: Machine, path: str | Path) -> None:
    """Writes machine and rows as JSON; the file appears whole or not at all."""
    limits = asdict(machine)
    if not machine.caches:
        del limits["caches"]
    write_rows(rows, limits, path)


def write_rows(rows: Sequence[Row], machine: Mapping[str, Any], path: str | Path) -> None:
    """Writes the rows as JSON, and what is known of the machine."""
    result = {"machine": dict(machine), "rows": [row.record(rows) for row in rows]}
    with replacing(path) as part:
        part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@contextmanager
def progress(console: Console | None, title: str, total: int) -> Iterator[Callable[[], None]]:
    """How much is done, on stderr; nothing without a ``console``."""
    if console is None:
        yield lambda: None
        return
    done = itertools.count(1)
    with bar(title) as advance:
        yield lambda: advance(next(done), total)
