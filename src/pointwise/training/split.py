"""Scans held out of training: by group, or by a straight cut through the scene."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.classes import codes_of
from pointwise.training.recipe import Task
from pointwise.training.shelf import MEMORY, Memory

HOWS = ("group", "space")


def hold_out(
    scans: Sequence[Scan],
    task: Task,
    share: float,
    *,
    seed: int = 0,
    how: str | None = None,
    memory: Memory = MEMORY,
) -> tuple[list[Scan], list[Scan]]:
    """Divides scans into those to keep and those held out, which are at least ``share`` of all.

    By group where there are several (``how="group"``): no group is ever on both sides. A scene that
    stands alone is cut in two (``how="space"``). Raises ValueError where neither is possible.
    """
    if not 0 < share < 1:
        raise ValueError(f"train: --hold-out must lie between 0 and 1, got {share:g}")
    groups = {group_of(scan, i) for i, scan in enumerate(scans)}
    if how == "space" or (how is None and len(groups) == 1 and task == "segmentation"):
        if task == "classification":
            raise ValueError(
                "train: --split space cuts scenes with labelled points, not whole clouds"
            )
        kept, held = zip(*(cut_in_space(scan, share, memory) for scan in scans), strict=True)
        return list(kept), list(held)
    if len(groups) < 2:
        raise ValueError(
            "train: all clouds are of one group (one recording, one building), which is never"
            " divided; give other clouds with --test"
        )
    return by_group(scans, task, share, seed)


def group_of(scan: Scan, place: int) -> str:
    """The scan's group; a scan that names none is a group of its own."""
    return scan.group or f"\0{place}"


def by_group(
    scans: Sequence[Scan], task: Task, share: float, seed: int
) -> tuple[list[Scan], list[Scan]]:
    """Holds out whole groups: for classification of each class, else such that none is missing.

    The only group of a class is kept, since nothing can be learned of a class that is held out.
    """
    groups = [group_of(scan, i) for i, scan in enumerate(scans)]
    rng = np.random.default_rng(seed)
    if task == "classification":
        held = of_each_class([scan.label for scan in scans], groups, share, rng)
    else:
        held = _balanced(scans, groups, share, rng)
    return (
        [scan for i, scan in enumerate(scans) if i not in held],
        [scan for i, scan in enumerate(scans) if i in held],
    )


def of_each_class(
    labels: Sequence[int | None], groups: Sequence[str], share: float, rng: np.random.Generator
) -> set[int]:
    """The places that are held out: whole groups, until they are ``share`` of their class.

    ``labels`` and ``groups`` are those of each thing, None where it has no label. A group counts
    for the class that most of it have. The only group of a class is never held out.
    """
    strata: dict[int, list[list[int]]] = defaultdict(list)
    for places in _members(groups):
        known = [label for i in places if (label := labels[i]) is not None]
        if known:
            strata[max(sorted(set(known)), key=known.count)].append(places)
    held: set[int] = set()
    for label in sorted(strata):
        order = [strata[label][i] for i in rng.permutation(len(strata[label]))]
        held.update(i for g in order[: _enough([len(g) for g in order], share)] for i in g)
    return held


def _balanced(
    scans: Sequence[Scan], names: Sequence[str], share: float, rng: np.random.Generator
) -> set[int]:
    groups = _members(names)
    sizes = [sum(len(scans[i]) for i in group) for group in groups]
    codes = [set[int]().union(*(codes_of(scans[i]).tolist() for i in g)) for g in groups]
    every = set[int]().union(*codes)
    best: tuple[tuple[int, int], list[int]] = ((-len(every) - 1, 0), [])
    for _ in range(100):
        order = rng.permutation(len(groups)).tolist()
        count = _enough([sizes[g] for g in order], share)
        held, kept = (
            set[int]().union(*(codes[g] for g in side)) for side in (order[:count], order[count:])
        )
        found = len(kept) - len(every), len(held & kept)  # what is lost, and what can be tested
        if found > best[0]:
            best = found, order[:count]
    return {i for g in best[1] for i in groups[g]}


def _members(groups: Sequence[str]) -> list[list[int]]:
    """The places of each group, in the order in which the groups first occur."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    return list(members.values())


def _enough(sizes: Sequence[int], share: float) -> int:
    """How many of the first groups hold ``share`` of all, one being left at least."""
    count = int(np.searchsorted(np.cumsum(sizes), share * sum(sizes) - 1e-9)) + 1
    return min(count, len(sizes) - 1)


def cut_in_space(scan: Scan, share: float, memory: Memory = MEMORY) -> tuple[Scan, Scan]:
    """Cuts a scene across a horizontal axis into a part to keep and one to hold out.

    No class is lost to the part to keep, if any cut can spare it. Of such cuts, it is one with most
    classes on both sides (a twentieth of each at least); of these, across the longer axis if
    possible, one where the part held out is nearest to ``share``, and not below it unless a class
    would be lost.
    """
    labelled = np.ones(len(scan), bool) if scan.labels is None else scan.labels != UNLABELLED
    extent = find_extent(scan.points)
    labelled &= ~extent.stray
    longer = int(np.argmax(np.ptp(extent.kept[:, :2], axis=0)))
    if not labelled.any() or np.ptp(scan.points[labelled, longer]) == 0:
        raise ValueError(f"train: {scan.source or scan.name} cannot be cut in two; give --test")
    larger = np.linspace(share, min(1.6 * share, 0.9), 26)  # more would be missed in training
    smaller = np.linspace(share, share / 4, 26)[1:]
    best = None
    for held_shares in (larger, smaller):
        for axis in (longer, 1 - longer):
            along = scan.points[:, axis]
            for sign in (1, -1):  # hold out the far end, or the near one
                cuts = np.quantile(sign * along[labelled], 1 - held_shares)
                lost, both = _classes_of_sides(scan, labelled, sign * along, cuts)
                for place, cut in enumerate(cuts):  # the first, so nearest to the share
                    found = -lost[place], both[place], axis == longer, -place
                    if best is None or found > best[0]:
                        best = found, sign * along >= cut
        assert best is not None
        if best[0][0] == 0:
            break
    assert best is not None
    return memory.scan(_part(scan, ~best[1])), memory.scan(_part(scan, best[1]))


def _classes_of_sides(
    scan: Scan, labelled: np.ndarray, along: np.ndarray, cuts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each cut, how many classes are on its far side alone, and how many on both sides."""
    lost, both = np.zeros(len(cuts), dtype=np.int64), np.zeros(len(cuts), dtype=np.int64)
    for code in codes_of(scan):
        assert scan.labels is not None
        places = along[(scan.labels == code) & labelled]
        if len(places):
            low, high = np.quantile(places, [0.05, 0.95])
            lost += cuts <= places.min()
            both += (cuts > low) & (cuts <= high)
    return lost, both


def _part(scan: Scan, mask: np.ndarray) -> Scan:
    # Both parts are of one recording, but the cut has made them what training may tell apart.
    return replace(scan.select(mask), group="")
