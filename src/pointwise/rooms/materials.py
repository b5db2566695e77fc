"""What things are made of: the classes, and the colours and reflectances of materials.

Classes share materials (a door, a table and a bookcase may be of the same wood), so that a colour
is a hint of the class, as in real rooms, and never the label itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CLASSES = (
    "ceiling",
    "floor",
    "wall",
    "column",
    "door",
    "table",
    "chair",
    "sofa",
    "bookcase",
    "board",
    "clutter",
)
CEILING, FLOOR, WALL, COLUMN, DOOR, TABLE, CHAIR, SOFA, BOOKCASE, BOARD, CLUTTER = range(11)

MATERIALS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "plaster": (
        (238, 236, 230),
        (226, 220, 204),
        (208, 210, 212),
        (214, 222, 226),
        (228, 214, 180),
    ),
    "tiles": ((235, 235, 232), (222, 221, 216), (205, 204, 200)),
    "concrete": ((168, 166, 160), (146, 145, 142), (186, 182, 174)),
    "carpet": ((104, 108, 116), (86, 96, 124), (134, 122, 108), (120, 74, 66), (98, 110, 96)),
    "wood": ((196, 158, 112), (164, 120, 78), (122, 82, 54), (222, 198, 160), (88, 62, 48)),
    "laminate": ((232, 230, 226), (204, 204, 202), (176, 172, 166)),
    "metal": ((170, 172, 176), (122, 124, 128), (70, 72, 76), (206, 208, 210)),
    "plastic": ((48, 48, 52), (92, 94, 98), (200, 198, 194), (58, 92, 146), (168, 58, 52)),
    "fabric": ((56, 58, 64), (62, 84, 128), (128, 60, 58), (132, 130, 126), (82, 112, 90)),
    "leather": ((44, 38, 36), (104, 66, 44), (148, 112, 84), (196, 186, 172)),
    "whiteboard": ((242, 243, 244), (232, 234, 236)),
    "chalkboard": ((48, 84, 68), (52, 62, 60)),
    "cork": ((178, 134, 88), (190, 150, 104)),
    "paper": (
        (224, 218, 204),
        (150, 48, 44),
        (50, 70, 122),
        (64, 104, 74),
        (58, 54, 52),
        (206, 168, 72),
    ),
    "cardboard": ((176, 138, 96), (160, 122, 84)),
    "leaf": ((62, 106, 52), (86, 128, 60), (48, 84, 56)),
}


class Paint(NamedTuple):
    """The colour (RGB, 0–255) of a surface and its reflectance (0–1) in the scanner's infrared."""

    color: tuple[float, float, float]
    reflectance: float


def paint(rng: np.random.Generator, *materials: str) -> Paint:
    """A paint of one of ``materials``, a little different for every object."""
    shades = MATERIALS[materials[rng.integers(len(materials))]]
    base = np.array(shades[rng.integers(len(shades))], dtype=np.float64)
    color = np.clip(base * rng.normal(1.0, 0.08) + rng.normal(0.0, 5.0, 3), 8.0, 250.0)
    # Infrared follows brightness only loosely: black fabric is often bright, some whites are dark.
    reflectance = 0.12 + 0.7 * color.mean() / 255.0 + rng.normal(0.0, 0.1)
    red, green, blue = (float(value) for value in color)
    return Paint((red, green, blue), float(np.clip(reflectance, 0.05, 0.95)))
