"""One colour per class name, the same in every picture and page.

Where the field has a convention it is kept (ground brown, vegetation green, buildings red, water
blue; rooms as in S3DIS, with softer tones); every other name gets a colour of Okabe & Ito and of
Paul Tol, whose sets stay distinguishable with the common colour vision deficiencies.
"""

from __future__ import annotations

import colorsys
import re
import zlib
from collections.abc import Iterator, Sequence

UNLABELLED_COLOR = "#9a9a9a"

CONVENTIONAL = {
    # outdoors, by the ASPRS names and the common short ones
    "unlabelled": UNLABELLED_COLOR,
    "unlabeled": UNLABELLED_COLOR,
    "unclassified": UNLABELLED_COLOR,
    "never classified": "#b8b8b8",
    "ground": "#a6743c",
    "terrain": "#a6743c",
    "low vegetation": "#b5d96a",
    "medium vegetation": "#66b245",
    "high vegetation": "#1c7a35",
    "vegetation": "#2f9140",
    "tree": "#1c7a35",
    "grass": "#b5d96a",
    "building": "#e2572b",
    "roof": "#e2572b",
    "facade": "#f0a07c",
    "noise": "#d81b9c",
    "water": "#2f6fd6",
    "rail": "#6d5b8c",
    "road": "#676c7a",
    "road surface": "#676c7a",
    "bridge deck": "#8c2d19",
    "bridge": "#8c2d19",
    "wire": "#f2b705",
    "wire guard": "#f7dc6f",
    "wire conductor": "#f2b705",
    "transmission tower": "#7b3fa0",
    "pole": "#7b3fa0",
    "fence": "#c78ad8",
    "car": "#0aa5b8",
    "vehicle": "#0aa5b8",
    "person": "#d62a6e",
    "pedestrian": "#d62a6e",
    # rooms, after S3DIS
    "ceiling": "#8fd694",
    "floor": "#4571cc",
    "wall": "#7ccad9",
    "beam": "#e6d040",
    "column": "#d65bd0",
    "window": "#7d80f0",
    "door": "#c4ba62",
    "table": "#a878c9",
    "chair": "#e0322f",
    "sofa": "#c96a66",
    "bookcase": "#17a866",
    "board": "#c4c4c4",
    "clutter": "#6b6b6b",
}

OTHERS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#882255",
    "#999933",
    "#332288",
    "#44aa99",
    "#ddcc77",
    "#aa4499",
    "#117733",
    "#cc6677",
    "#6699cc",
    "#661100",
    "#88ccee",
    "#aa7744",
    "#f0e442",
    "#aa4466",
)


def class_colors(names: Sequence[str]) -> list[str]:
    """One ``#rrggbb`` per name, no two alike, and each the same whatever the other names are,
    unless two names want the same colour (then the one that sorts later gives way)."""
    chosen: dict[str, str] = {}
    for name in sorted(set(names), key=lambda name: (_convention(name) is None, name)):
        taken = set(chosen.values())
        chosen[name] = next(color for color in _wishes(name) if color not in taken)
    return [chosen[name] for name in names]


def rgb(color: str) -> tuple[int, int, int]:
    """The three bytes of ``#rrggbb``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _convention(name: str) -> str | None:
    """The colour that convention gives to a name, or to the longest known term inside it."""
    words = f" {re.sub(r'[^a-z0-9]+', ' ', name.lower()).strip()} "
    terms = [term for term in CONVENTIONAL if f" {term} " in words]
    return CONVENTIONAL[max(terms, key=len)] if terms else None


def _wishes(name: str) -> Iterator[str]:
    """The colours for a name, the best first, without end."""
    if convention := _convention(name):
        yield convention
    number = re.search(r"\d+$", name)  # "class 3" and "class 4" get neighbours, never the same
    start = int(number.group()) if number else zlib.crc32(name.encode(errors="replace"))
    for step in range(len(OTHERS)):
        yield OTHERS[(start + step) % len(OTHERS)]
    step = start % 1000
    while True:  # more classes than anyone can tell apart: hues a golden ratio apart
        step += 1
        red, green, blue = colorsys.hsv_to_rgb(step * 0.618034 % 1, 0.55 + 0.4 * (step % 2), 0.8)
        yield f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
