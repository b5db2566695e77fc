"""Units of length: what a file states, and scans brought from one unit to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pointwise.cloud.scan import Scan

METRES = {"m": 1.0, "ft": 0.3048, "US ft": 1200 / 3937}
DEGREE = "degree"


def in_unit(scan: Scan, unit: str | None) -> Scan:
    """The scan with its points in ``unit``; as it is where either of the two is not known.

    Raises ValueError where its coordinates are angles, or the others are.
    """
    if unit is None or scan.unit is None or scan.unit == unit:
        return scan
    if DEGREE in (unit, scan.unit):
        raise ValueError(
            f"{scan.source or scan.name} has coordinates in {scan.unit}, the others in {unit};"
            " project it to a plane first"
        )
    return replace(scan, points=scan.points * factor(scan.unit, unit), unit=unit)


def factor(one: str | None, other: str | None) -> float:
    """What lengths in one unit are multiplied by to be in another; 1 where that is not known."""
    known = one in METRES and other in METRES
    return METRES[one] / METRES[other] if known else 1.0  # type: ignore[index]


def usual_unit(scans: Sequence[Scan]) -> str | None:
    """The unit that most of the scans state, None where none does."""
    stated = Counter(scan.unit for scan in scans if scan.unit is not None)
    return stated.most_common(1)[0][0] if stated else None
