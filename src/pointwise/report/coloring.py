"""What a scan can be coloured by, its classes, and which of its points to show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.report.palette import UNLABELLED_COLOR, class_colors

RIGHT_COLOR, WRONG_COLOR = "#d4d7dc", "#c8102e"  # apart by lightness too

WAYS = ("label", "color", "intensity", "height")  # the first that a scan has is the default


@dataclass
class Group:
    """One class of a scan: its code, its name and colour, and the mask of its points ``[N]``."""

    code: int
    name: str
    color: str
    mask: np.ndarray


def ways(scan: Scan) -> list[str]:
    """The members of ``WAYS`` that would show something in this scan."""
    has = {
        "label": scan.labels is not None and bool((scan.labels != UNLABELLED).any()),
        "color": "color" in scan.fields and bool(scan.fields["color"].any()),
        "intensity": "intensity" in scan.fields and _varies(scan.fields["intensity"]),
        "height": True,
    }
    return [way for way in WAYS if has[way]]


def choose(scan: Scan, by: str | None) -> str:
    """``by`` if the scan has it, the best it has where ``by`` is None; ValueError otherwise."""
    if by is not None and by not in WAYS:
        raise ValueError(f"by must be one of {', '.join(WAYS)}, got {by!r}")
    possible = ways(scan)
    if by is not None and by not in possible:
        raise ValueError(
            f"by={by!r}: this scan has no {by}, or the same one everywhere; "
            f"it can be coloured by {' or '.join(possible)}"
        )
    return by or possible[0]


def groups(scan: Scan) -> list[Group]:
    """The classes that occur in a scan, by code; points without a label come last."""
    if scan.labels is None:
        return []
    codes = [int(code) for code in np.unique(scan.labels)]
    codes = [c for c in codes if c != UNLABELLED] + [c for c in codes if c == UNLABELLED]
    names = [_name(scan, code) for code in codes]
    known = [name for code, name in zip(codes, names, strict=True) if code != UNLABELLED]
    colors = [*class_colors(known), UNLABELLED_COLOR]
    return [
        Group(code, name, color, scan.labels == code)
        for code, name, color in zip(codes, names, colors, strict=False)
    ]


def wrong_labels(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The mask ``[N]`` of points with a true label that the prediction misses."""
    return (truth != UNLABELLED) & (truth != predicted)


def ceiling(scan: Scan) -> np.ndarray:
    """The mask ``[N]`` of the points of a class named ceiling, which would hide its room."""
    codes = [code for code, name in scan.classes.items() if name.strip().lower() == "ceiling"]
    if scan.labels is None or not codes:
        return np.zeros(len(scan), bool)
    return np.isin(scan.labels, codes)


def shown(scan: Scan) -> Scan:
    """The points that have finite coordinates; ValueError where there is none."""
    if len(scan) == 0:
        raise ValueError(f"{called(scan)} holds no points, so there is nothing to show")
    finite = np.isfinite(scan.points).all(1)
    if not finite.any():
        raise ValueError(
            f"{called(scan)}: none of its {len(scan):,} points has finite coordinates, "
            "so there is nothing to show"
        )
    return scan if finite.all() else scan.select(finite)


def called(scan: Scan) -> str:
    """What to call a scan in a title or a message."""
    return scan.name or (scan.source.name if scan.source else "") or "the scan"


def stretch(values: np.ndarray) -> tuple[float, float]:
    """The range that a colour scale should span: without the outermost 1 %, and never empty."""
    finite = values[np.isfinite(values)]
    low, high = (float(v) for v in np.percentile(finite, (1, 99)))
    if not high > low:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def size(scan: Scan) -> str:
    """The extent of a scan in its own unit, without strays: ``40 × 39.9 × 51.3``."""
    sides = np.ptp(find_extent(scan.points).kept, axis=0)
    return " × ".join(f"{s:,.0f}" if 1000 <= s < 1e9 else f"{s:.4g}" for s in sides)


def number(count: int, thing: str) -> str:
    """A count and what it counts: ``1 point``, ``2,000 points``."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def share(count: int, total: int) -> str:
    """A part of a whole in per cent, and never 0 where there is something."""
    percent = 100 * count / total
    return f"{percent:.1f} %" if percent >= 0.1 or count == 0 else "< 0.1 %"


def _name(scan: Scan, code: int) -> str:
    if code == UNLABELLED:
        return "unlabelled"
    return scan.classes.get(code, "") or f"class {code}"


def _varies(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and bool(finite.min() < finite.max())
