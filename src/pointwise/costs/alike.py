"""Layers of a deep network that are alike, as one: blocks repeat, and so would what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pointwise.costs.profiled import Profile, Row

MANY = 24
"""Rows that a table may have before layers that are alike share one."""
_NAMED = 3  # layers, before "and … more"
_COUNTS = 0.01  # of the time: less is not worth a sentence


@dataclass(frozen=True)
class Alike:
    """Layers of the same kind with the same counts, in the order in which they ran."""

    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        times = f" ×{len(self.rows)}" if len(self.rows) > 1 else ""
        return together([row.name for row in self.rows]) + times

    @property
    def milliseconds(self) -> float:
        """Of all of them."""
        return sum(row.milliseconds for row in self.rows)

    @property
    def share(self) -> float | None:
        """Of their roofline, that they reach together."""
        limit = sum(row.limit_ms for row in self.rows)
        return limit / self.milliseconds if limit and self.milliseconds > 0 else None

    @property
    def bound(self) -> str:
        """What bounds most of them: one word, so that the names keep their room in a terminal."""
        return Counter(row.bound for row in self.rows).most_common(1)[0][0]


def alike(rows: Sequence[Row]) -> list[Alike]:
    """The rows, those with the same kind and counts together, each group where its first one is."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.fused, row.count), []).append(row)
    return [Alike(tuple(group)) for group in groups.values()]


def together(names: Sequence[str]) -> str:
    """``layer3.1-5.conv2`` of five names that differ in a number; else the first and the last.

    >>> together(["blocks.6", "blocks.7", "blocks.9"]), together(["stem", "head.conv"])
    ('blocks.6-9', 'stem … head.conv')
    """
    if len(names) == 1:
        return names[0]
    parts = [name.split(".") for name in names]
    if len({len(each) for each in parts}) > 1:
        return f"{names[0]} … {names[-1]}"
    said = []
    for column in zip(*parts, strict=True):
        distinct = list(dict.fromkeys(column))
        if len(distinct) == 1:
            said.append(distinct[0])
        elif all(word.isdigit() for word in distinct):
            numbers = [int(word) for word in distinct]
            said.append(f"{min(numbers)}-{max(numbers)}")
        else:
            said.append("*")
    return ".".join(said)


@dataclass(frozen=True)
class Far:
    """Layers that are far from their rooflines for one reason, those that lose most first."""

    rows: tuple[Row, ...]

    @property
    def lost_ms(self) -> float:
        return sum(row.lost_ms for row in self.rows)

    @property
    def bound(self) -> str:
        return self.rows[0].bound

    @property
    def names(self) -> str:
        shown = ", ".join(row.name for row in self.rows[:_NAMED])
        rest = len(self.rows) - _NAMED
        return f"{shown} and {rest} more" if rest > 0 else shown

    @property
    def reason(self) -> str:
        """That of the layer that loses most, with its name where there are several."""
        first = self.rows[0]
        return first.reason if len(self.rows) == 1 else f"{first.name}: {first.reason}"


def far(found: Profile) -> list[Far]:
    """Who loses more than a hundredth of the time, by what bounds them and by kind."""
    rows = [row for row in found.rows if row.is_far or (row.share is None and row.lost_ms > 0)]
    rows.sort(key=lambda row: -row.lost_ms)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.bound, row.kind), []).append(row)
    whole = found.sum_ms
    made = [Far(tuple(group)) for group in groups.values()]
    kept = [each for each in made if each.lost_ms > _COUNTS * whole]
    return sorted(kept, key=lambda each: -each.lost_ms)
