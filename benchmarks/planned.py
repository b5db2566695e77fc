"""Cases that are built one at a time, when it is their turn, and a choice among them by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import machine
from frame import Case, Row, measure, progress, show, with_limits, write
from rich.console import Console

QUICK_NOTE = "Quick: the cases are tiny, and these numbers say nothing about speed."
_LISTED = 12  # names that an error message gives as examples


@dataclass(frozen=True)
class Planned:
    """A case to be. Without ``usual`` it takes part only where it is asked for by name."""

    name: str
    make: Callable[[], Any]
    usual: bool = True


class Named(Protocol):
    """What can be chosen by its name."""

    @property
    def name(self) -> str: ...

    @property
    def usual(self) -> bool: ...


_Named = TypeVar("_Named", bound=Named)


def chosen(planned: Sequence[_Named], only: str | None) -> list[_Named]:
    """The usual ones, or all whose names match ``only``: patterns or parts of names, by commas."""
    if only is None:
        return [plan for plan in planned if plan.usual]
    found = matching([plan.name for plan in planned], only)
    return [plan for plan in planned if plan.name in found]


def matching(names: Sequence[str], only: str) -> set[str]:
    """The ``names`` that match patterns or hold parts; ValueError for one that matches none."""
    found: set[str] = set()
    for part in filter(None, map(str.strip, only.split(","))):
        pattern = part if set(part) & set("*?[") else f"*{part}*"
        exact = [part] if part in names else fnmatch.filter(names, pattern)
        if not exact:
            raise ValueError(f"bench: no case has {part!r} in its name; there are {_some(names)}")
        found.update(exact)
    if not found:
        raise ValueError(f"bench: --only {only!r} names no case; there are {_some(names)}")
    return found


def _some(names: Sequence[str]) -> str:
    """All names, or some from the whole range of them."""
    if len(names) <= _LISTED:
        return ", ".join(names)
    step = len(names) / _LISTED
    return (
        ", ".join(names[int(i * step)] for i in range(_LISTED)) + f" and so on, {len(names)} in all"
    )


def run(
    planned: Sequence[Planned],
    json: Path | None,
    rounds: int,
    quick: bool,
    only: str | None,
    notes: Iterable[str] = (),
) -> None:
    """Measures the chosen cases one after the other, prints a table, and writes it to ``json``.

    Contestants take turns within a case. Nothing of a case is left when the next one is built. What
    was measured before an error or Ctrl-C is in ``json``.
    """
    console = Console(highlight=False)
    some = chosen(planned, only)
    for note in notes:
        console.print(note, highlight=False)
    before = machine.measured(quick, with_caches=True)
    rows: list[Row] = []
    bounds: list[Case] = []
    try:
        with progress(console, "cases", len(some)) as advance:
            for plan in some:
                case = plan.make()
                rows += measure([case], min(rounds, 2) if quick else rounds)
                bounds.append(replace(case, contestants=(), check=lambda _: None))
                advance()
    except BaseException:
        if json is not None and rows:
            write(with_limits(rows, bounds, before), before, json)
        raise
    limits = machine.better(before, machine.measured(quick, with_caches=True))
    rows = with_limits(rows, bounds, limits)
    show(rows, limits, console, QUICK_NOTE if quick else "")
    if json is not None:
        write(rows, limits, json)
