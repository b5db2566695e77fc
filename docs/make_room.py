"""Draws README's picture from what ``pointwise demo`` leaves: a room as scanned, and labelled.

``python docs/make_room.py demo`` writes ``docs/pictures/room.png``; with a second argument, there.
Ceiling and the two walls nearest to the eye are left out. There is nothing behind the room, and
words are grey, so that it stands on light and on dark pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from pointwise.cloud.files import read_scan
from pointwise.cloud.scan import Scan
from pointwise.report.coloring import ceiling, groups
from pointwise.report.palette import rgb
from pointwise.report.splat import shade, turn, view

SIDE, LEGEND, DPI = 700, 56, 100  # pixels: of a view, of the line below both
HEIGHT = 560
MORE = 2  # drawn so many times as large, then averaged
AROUND, ABOVE = -60, 50  # degrees
NEAR = 0.15  # metres: how thick a wall is that stands before the room
GREY = "#7d8590"
COLORS = 200  # of the PNG


def open_room(scan: Scan) -> np.ndarray:
    """Which points are shown: not the ceiling, nor the walls towards the eye."""
    low, high = scan.points.min(0), scan.points.max(0)
    towards = np.array([np.cos(np.radians(AROUND)), np.sin(np.radians(AROUND))])
    edge = np.where(towards > 0, high[:2], low[:2])
    before = (np.abs(scan.points[:, :2] - edge) < NEAR).any(1)
    standing = scan.points[:, 2] > low[2] + NEAR
    return ~ceiling(scan) & ~(before & standing)


def drawn(scan: Scan, colors: np.ndarray) -> np.ndarray:
    """``[HEIGHT, SIDE, 4]``, 0 to 1: the points from one side, and nothing behind them."""
    seen = turn(scan.points - scan.points.mean(0), AROUND, ABOVE)
    pixels = view(seen, SIDE * MORE, HEIGHT * MORE)
    light = shade(pixels.depth, pixels.radius)
    full = pixels.index >= 0
    large = np.zeros((*full.shape, 4), np.float32)
    large[full, :3] = colors[pixels.index[full]] * light[full][:, None]
    large[full, 3] = 1
    small = sum(large[y::MORE, x::MORE] for y in range(MORE) for x in range(MORE)) / MORE**2
    small[..., :3] /= np.maximum(small[..., 3:], 1e-6)  # edges keep the colour of their points
    return small.clip(0, 1)


def main(demo: Path, path: Path) -> None:
    scan = read_scan(demo / "room-labelled.ply")
    scan = scan.select(open_room(scan))
    classes = groups(scan)
    labels = np.empty((len(scan), 3), np.float32)
    for group in classes:
        labels[group.mask] = np.array(rgb(group.color)) / 255
    figure = Figure((2 * SIDE / DPI, (HEIGHT + LEGEND) / DPI), dpi=DPI)
    share = HEIGHT / (HEIGHT + LEGEND)
    for left, colors in ((0.0, scan.fields["color"] / 255.0), (0.5, labels)):
        axes = figure.add_axes((left, 1 - share, 0.5, share))
        axes.set_axis_off()
        axes.imshow(drawn(scan, colors.astype(np.float32)), interpolation="none", aspect="auto")
    figure.legend(
        handles=[Patch(color=group.color, label=group.name) for group in classes],
        loc="center", bbox_to_anchor=(0.5, 0.045), ncols=len(classes), frameon=False,
        labelcolor=GREY, fontsize=17, handlelength=1, handletextpad=0.5, columnspacing=1.6,
    )  # fmt: skip
    figure.savefig(path, transparent=True)
    Image.open(path).quantize(COLORS, Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    places = [Path(argument) for argument in sys.argv[1:]]
    main(places[0], places[1] if places[1:] else Path(__file__).with_name("pictures") / "room.png")
