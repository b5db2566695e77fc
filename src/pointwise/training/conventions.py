"""What is taken for granted of data, and what of them is left out: lines to be told and kept.

Files seldom say what a code or a number means. Whatever is decided by a convention instead is named
once, so that who knows better can see it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.cloud.units import DEGREE
from pointwise.messages import rounded
from pointwise.training.classes import codes_of

MOST_NAMES = 3
IGNORE = 255  # what data sets of images, and some of clouds, call "ignore"
SAMPLE = 10_000
RATIO = 20  # between the intensities of two files, from which on they look scaled differently


def conventions(scans: Sequence[Scan], task: str) -> list[str]:
    """One line for everything that is left out of ``scans`` or assumed of them, as they were read.

    ``task`` is what is learned of them: "segmentation" or "classification".
    """
    lines = [f"left out: {line}" for line in left_out(scans, task)]
    lines += [f"assumed: {line}" for line in assumed(scans)]
    lines += [f"note: {line}" for line in _doubts(scans, task)]
    return lines


def left_out(scans: Sequence[Scan], task: str = "segmentation") -> list[str]:
    """What nothing is learned from: codes that are no class, points and clouds without a label."""
    if task == "classification":
        without = [scan for scan in scans if scan.label is None]
        return [f"{len(without):,} of {len(scans):,} clouds without a label: {_names(without)}"] * (
            0 < len(without) < len(scans)
        )
    counts: Counter[tuple[int, str]] = Counter()
    holders: dict[tuple[int, str], list[Scan]] = defaultdict(list)
    for scan in scans:
        if scan.labels is None:
            continue
        found = {(code, scan.no_class[code][1]): scan.no_class[code][0] for code in scan.no_class}
        rest = int((scan.labels == UNLABELLED).sum()) - sum(found.values())
        if rest > 0:
            found[UNLABELLED, "no label"] = rest
        counts.update(found)
        for key in found:
            holders[key].append(scan)
    lines = [
        f"{counts[key]:,} points of code {key[0]} ({key[1]}) in {_names(holders[key])}"
        for key in sorted(counts)
    ]
    without = [scan for scan in scans if scan.labels is None or not len(codes_of(scan))]
    if 0 < len(without) < len(scans):
        lines.append(
            f"{len(without):,} of {len(scans):,} clouds without a class: {_names(without)}"
        )
    return lines


def assumed(scans: Sequence[Scan]) -> list[str]:
    """What the files do not say and was decided when they were read, with the files' names."""
    holders: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        for line in scan.assumed:
            holders[line].append(scan)
    return [f"{line}: {_names(found)}" for line, found in holders.items()]


def units_of(scans: Sequence[Scan], unit: str) -> list[str]:
    """What is converted to ``unit``, which others state, and what is taken to be in it."""
    lines = []
    if unit == DEGREE:
        lines.append(
            f"note: coordinates are {DEGREE}s, beside heights that are not: project them first"
        )
    for other in sorted({scan.unit for scan in scans if scan.unit not in (None, unit)}, key=str):
        found = _names([scan for scan in scans if scan.unit == other])
        lines.append(f"note: converted from {other} to {unit}: {found}")
    if silent := [scan for scan in scans if scan.unit is None]:
        lines.append(f"assumed: in {unit}, as others state: {_names(silent)}")
    return lines


def _doubts(scans: Sequence[Scan], task: str) -> list[str]:
    lines = []
    if task == "segmentation" and any(IGNORE in codes_of(scan) for scan in scans):
        lines.append(
            f"code {IGNORE} is learned as a class like any other, though it often means 'ignore'"
        )
    for code, names in sorted(_names_of_codes(scans).items()):
        if len(names) > 1:
            called = ", ".join(f"{name!r} in {_names(found)}" for name, found in names.items())
            lines.append(f"code {code} has several names and is one class: {called}")
    tops = [
        (float(np.nanquantile(values[:: len(values) // SAMPLE + 1], 0.95)), scan)
        for scan in scans
        if (values := scan.fields.get("intensity")) is not None and np.isfinite(values).any()
    ]
    tops = sorted([pair for pair in tops if pair[0] > 0], key=lambda pair: pair[0])
    if tops and tops[-1][0] > RATIO * tops[0][0]:
        (low, dark), (high, bright) = tops[0], tops[-1]
        lines.append(
            f"intensity reaches {rounded(low, 4)} in {_names([dark])} and {rounded(high, 4)} in"
            f" {_names([bright])}; it is read as one scale"
        )
    return lines


def _names_of_codes(scans: Iterable[Scan]) -> dict[int, dict[str, list[Scan]]]:
    """Under each code that occurs, the names that scans give it, and which do."""
    found: dict[int, dict[str, list[Scan]]] = defaultdict(lambda: defaultdict(list))
    for scan in scans:
        for code in codes_of(scan).tolist():
            if code in scan.classes:
                found[code][scan.classes[code]].append(scan)
    return found


def _names(scans: Sequence[Scan]) -> str:
    """The files, a few of them by name; clouds of one file count once."""
    names = list(dict.fromkeys(_name(scan) for scan in scans))
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _name(scan: Scan) -> str:
    return Path(scan.source).name if scan.source is not None else scan.name or "a cloud"
