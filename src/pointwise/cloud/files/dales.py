"""DALES Objects: tiles of an aerial scan, as PLY with the properties sem_class and ins_class."""

from __future__ import annotations

import numpy as np

from pointwise.cloud.scan import UNLABELLED, Scan

NAMES = (
    "ground",
    "vegetation",
    "cars",
    "trucks",
    "power lines",
    "fences",
    "poles",
    "buildings",
)
CLASSES = dict(enumerate(NAMES, start=1))  # code 0 is unknown
MARKS = {"sem_class", "ins_class"}  # properties that no other data set has together


def with_classes(scan: Scan) -> Scan:
    """Names the classes of a tile whose labels were read from ``sem_class``; 0 is no class."""
    assert scan.labels is not None
    unknown = scan.labels == 0
    if unknown.any():
        scan.labels = np.where(unknown, UNLABELLED, scan.labels)
        scan.no_class = {0: (int(unknown.sum()), "unknown in DALES")}
    scan.classes = dict(CLASSES)
    scan.assumed = ("class names are those of DALES",)
    return scan
