"""The classes of LAS files: the ASPRS standard's, and those that a file names itself."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from pointwise.cloud.scan import UNLABELLED
from pointwise.extras import import_extra

# ASPRS LAS 1.4, of point formats 6 to 10. Codes from 19 on were reserved before revision 14, or
# are free, and no header tells which revision it follows.
CLASSES = {
    2: "ground",
    3: "low vegetation",
    4: "medium vegetation",
    5: "high vegetation",
    6: "building",
    7: "low noise",
    8: "model key-point",
    9: "water",
    10: "rail",
    11: "road surface",
    12: "overlap",
    13: "wire guard",
    14: "wire conductor",
    15: "transmission tower",
    16: "wire connector",
    17: "bridge deck",
    18: "high noise",
}
SMALL_CLASSES = (*range(2, 10), 12)  # of them, those that point formats 0 to 5 define
UNCLASSIFIED = {0: "never classified", 1: "unclassified"}  # no class
BY_STANDARD = "codes 0 and 1 are no class and class names are the ASPRS standard's"


def codes_of(labels: np.ndarray) -> np.ndarray:
    """Labels as bytes, 0 where there is none; raises ValueError for what a byte cannot hold."""
    codes = np.where(labels == UNLABELLED, 0, labels)
    if len(codes) and not (codes.min() >= 0 and codes.max() <= 255):
        wrong = codes[(codes < 0) | (codes > 255)][0]
        raise ValueError(f"LAS holds class codes 0 to 255, got {wrong}; write .ply or .npz instead")
    if np.isin(labels, list(UNCLASSIFIED)).any():
        warnings.warn(
            "class codes 0 and 1 mean unclassified in LAS, and come back as unlabelled; "
            "add 2 to the codes, or write .ply or .npz",
            stacklevel=4,
        )
    return codes.astype(np.uint8)


def names_of(las: Any, codes: np.ndarray) -> dict[int, str]:
    """The names of classes: the file's own, else the standard's where its point format has one."""
    names = dict(CLASSES)
    if las.point_format.id < 6:
        names = {code: CLASSES[code] for code in SMALL_CLASSES}
    for vlr in las.header.vlrs.get("ClassificationLookupVlr"):
        names.update({c: n for c, n in vlr.lookups.items() if n and c not in UNCLASSIFIED})
    for code in np.unique(codes).tolist():
        if code not in names and code not in UNCLASSIFIED and code != UNLABELLED:
            names[code] = f"class {code}"
    return names


def new_names(las: Any, codes: np.ndarray, classes: dict[int, str]) -> dict[int, str]:
    """The names of the classes that are not in the file yet."""
    known = names_of(las, codes)
    wanted = {code: classes[code] for code in np.unique(codes).tolist() if code in classes}
    return {code: name for code, name in wanted.items() if known.get(code) != name}


def name_classes(las: Any, names: dict[int, str]) -> None:
    """Adds names to the file's classification lookup, which holds 15 ASCII letters of each."""
    lookup = import_extra("laspy.vlrs.known", "files").ClassificationLookupVlr()
    for vlr in las.header.vlrs.extract("ClassificationLookupVlr"):
        lookup.lookups.update(vlr.lookups)
    for code, name in names.items():
        if 0 <= code <= 255:
            lookup[code] = name.encode("ascii", "replace")[:15].decode()
    if lookup.lookups:
        las.header.vlrs.append(lookup)


def numbered_classes(codes: np.ndarray) -> dict[int, str]:
    """Names for codes that have none."""
    return {code: f"class {code}" for code in np.unique(codes).tolist() if code != UNLABELLED}
