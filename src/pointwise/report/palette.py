"""One colour per class name, the same in every picture and page.

Where the field has a convention its hue is kept (vegetation green, buildings red, water blue; in
rooms a red chair, green ceilings). Within that, the colours of the outdoor classes and those of
S3DIS were searched so that the nearest two of a set, and the grey of what has no label, are as far
apart as can be (CIEDE2000) for normal vision and for the three kinds of colour blindness; a test
holds what was reached. Every other name gets one of ``OTHERS``.
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
    "ground": "#907c00",
    "terrain": "#907c00",
    "low vegetation": "#b6e1b1",
    "medium vegetation": "#80b201",
    "high vegetation": "#39684c",
    "vegetation": "#80b201",
    "tree": "#39684c",
    "grass": "#b6e1b1",
    "building": "#a42d00",
    "roof": "#a42d00",
    "facade": "#e0b170",
    "noise": "#73286f",
    "water": "#1a7df8",
    "rail": "#0041ce",
    "road": "#645d68",
    "road surface": "#645d68",
    "bridge deck": "#6e1423",
    "bridge": "#6e1423",
    "wire": "#ebd93b",
    "wire guard": "#dfaa7a",
    "wire conductor": "#ebd93b",
    "transmission tower": "#b264a3",
    "pole": "#b264a3",
    "fence": "#c19ffe",
    "car": "#5cd1d3",
    "vehicle": "#5cd1d3",
    "person": "#ee6370",
    "pedestrian": "#ee6370",
    # rooms, by the names of S3DIS
    "ceiling": "#17ca7a",
    "floor": "#5827a5",
    "wall": "#aedddb",
    "beam": "#f5cd0f",
    "column": "#ff72ff",
    "window": "#1068e6",
    "door": "#852600",
    "table": "#814569",
    "chair": "#e12a2e",
    "sofa": "#e68316",
    "bookcase": "#198663",
    "board": "#a587b0",
    "clutter": "#4f4541",
}

OTHERS = (  # the first twelve searched alike, then of Paul Tol
    "#0da0ff",
    "#e28602",
    "#43efd6",
    "#e10054",
    "#c4c8ff",
    "#6b4902",
    "#795e7f",
    "#8fb677",
    "#332288",
    "#0f764e",
    "#e8da08",
    "#3962ef",
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
