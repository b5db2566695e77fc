"""A scan as a picture: seen obliquely and, where that tells more, from above."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra
from pointwise.messages import shortened
from pointwise.report.coloring import (
    Group,
    called,
    ceiling,
    choose,
    groups,
    number,
    share,
    shown,
    size,
    stretch,
)
from pointwise.report.figure import figure, save
from pointwise.report.palette import rgb
from pointwise.report.splat import bounds, shade, turn, view

WIDTH, HEIGHT = 1600, 900  # pixels
TOP, BOTTOM = 64, 110  # pixels for the title and for legend and caption
LEGEND = 24  # entries at most
MORE = 2  # drawn so many times as large, then averaged: smooth edges


def write_picture(scan: Scan, path: str | Path, *, by: str | None = None) -> None:
    """Writes a scan as a picture of 1600 × 900 pixels, PNG or what the suffix of ``path`` says.

    ``by`` is ``label``, ``color``, ``intensity`` or ``height``; by default the first of them that
    the scan has. A class named ceiling is left out, since it would hide its room. Raises
    ValueError where the scan has no point to show or not what ``by`` asks for.
    """
    by = choose(scan, by)
    scan = shown(scan)
    above = ceiling(scan)
    hidden = 0 if above.all() else int(above.sum())
    if hidden:
        scan = scan.select(~above)
    stray = find_extent(scan.points).stray
    if stray.any():
        scan = scan.select(~stray)
    classes = groups(scan) if by == "label" else []
    colors, scale = _colors(scan, by, classes)

    page = figure(WIDTH / 100, HEIGHT / 100)
    page.text(
        0.5,
        1 - 30 / HEIGHT,
        shortened(called(scan), 90),
        ha="center",
        va="center",
        size=17,
        weight="bold",
    )
    steep = 55 if hidden else 35  # into a room from higher up, over its walls
    low, high = bounds(scan.points)
    wide, deep, tall = high - low
    tall_room = HEIGHT - TOP - BOTTOM
    if tall <= 1.5 * max(wide, deep):
        draw(page, scan, colors, (20, BOTTOM, 940, tall_room), around=-60, above=steep)
        draw(page, scan, colors, (1060, BOTTOM, 500, tall_room), around=-90, above=90)
    else:  # a pole from above is a dot
        draw(page, scan, colors, (20, BOTTOM, WIDTH - 40, tall_room), around=-60, above=20)
    if classes:
        write_legend(page, classes, [share(int(g.mask.sum()), len(scan)) for g in classes])
    if scale:
        _bar(page, scale, by)
    _caption(page, scan, by, hidden, int(stray.sum()))
    save(page, path)


def _colors(scan: Scan, by: str, classes: list[Group]) -> tuple[np.ndarray, Any]:
    """A colour for every point, ``[N, 3]`` in 0 … 1, and the scale where values became colours."""
    if by == "color":
        return scan.fields["color"].astype(np.float32) / 255, None
    if by == "label":
        colors = np.empty((len(scan), 3), np.float32)
        for group in classes:
            colors[group.mask] = np.array(rgb(group.color)) / 255
        return colors, None
    cm = import_extra("matplotlib.cm", "report")
    values = scan.points[:, 2] if by == "height" else scan.fields["intensity"]
    scale = cm.ScalarMappable(cmap="viridis" if by == "height" else "cividis")
    scale.set_clim(*stretch(values))
    return scale.to_rgba(np.ma.masked_invalid(values))[:, :3].astype(np.float32), scale


def draw(
    page: Any,
    scan: Scan,
    colors: np.ndarray,
    place: tuple[int, int, int, int],
    *,
    around: float,
    above: float,
) -> None:
    """One view of the cloud, at ``place`` on the page: left, bottom, width and height in pixels."""
    left, bottom, width, height = place
    whole_width, whole_height = page.get_size_inches() * 100
    origin = scan.points.mean(0)
    seen = turn(scan.points - origin, around, above)
    if above == 90:  # a frame with ticks, no larger than what is in it
        low, high = bounds(seen)
        wide, deep, _ = np.maximum(high - low, 1e-9)
        spare, height = height, int(np.clip(width * deep / wide, width // 2, height - 40))
        bottom += (spare - height) // 2 + 10
    pixels = view(seen, width * MORE, height * MORE)
    light = shade(pixels.depth, pixels.radius)
    drawn = pixels.index >= 0
    large = np.ones((*drawn.shape, 3), np.float32)
    large[drawn] = colors[pixels.index[drawn]] * light[drawn][:, None]
    image = sum(large[y::MORE, x::MORE] for y in range(MORE) for x in range(MORE)) / MORE**2

    axes = page.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height),
        frameon=above == 90,
    )
    x, y = (origin[0], origin[1]) if above == 90 else (0.0, 0.0)
    box = np.add(pixels.box, (x, x, y, y))
    axes.imshow(image, extent=box, interpolation="none", aspect="auto")
    if above == 90:
        _ticks(axes)
    else:
        axes.set_axis_off()


def _ticks(axes: Any) -> None:
    """True coordinates along the view from above, written out in full."""
    axes.locator_params(nbins=5)
    axes.ticklabel_format(useOffset=False, style="plain")
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        room = 0.08 * (high - low)  # the labels of the two axes would meet in the corner
        axis.set_ticks([at for at in axis.get_ticklocs() if low + room < at < high - room])
    axes.tick_params(labelsize=9, color="#888888", labelcolor="#555555")
    for label in axes.get_yticklabels():
        label.set(rotation=90, va="center")
    for spine in axes.spines.values():
        spine.set_color("#cccccc")


def write_legend(page: Any, classes: list[Group], notes: list[str], at: int = 64) -> None:
    """The classes with a note each, ``at`` pixels over the foot of the page; smaller where they
    are many, the largest where there are too many."""
    patches = import_extra("matplotlib.patches", "report")
    order = sorted(range(len(classes)), key=lambda i: -classes[i].mask.sum())
    kept = sorted(order[:LEGEND])
    entries = [
        patches.Patch(
            color=classes[i].color, label=f"{shortened(classes[i].name, 30)} {notes[i]}".strip()
        )
        for i in kept
    ]
    if len(classes) > LEGEND:
        entries.append(patches.Patch(color="none", label=f"and {len(classes) - LEGEND} more"))
    points = 12 if len(entries) <= 12 else 9
    widths = [points * (4.5 + 0.85 * len(entry.get_label())) for entry in entries]  # pixels
    width, height = page.get_size_inches() * 100
    page.legend(
        handles=entries,
        loc="center",
        bbox_to_anchor=(0.5, at / height),
        ncols=len(entries) if sum(widths) < width else max(1, int(width / max(widths))),
        frameon=False,
        fontsize=points,
        handlelength=1.2,
        columnspacing=1.6,
    )


def _bar(page: Any, scale: Any, name: str) -> None:
    """The colour scale, lying under the views."""
    axes = page.add_axes([0.3, 66 / HEIGHT, 0.4, 14 / HEIGHT])
    bar = page.colorbar(scale, cax=axes, orientation="horizontal")
    bar.formatter.set_useOffset(False)
    bar.outline.set_visible(False)
    axes.text(-0.02, 0.5, name, transform=axes.transAxes, ha="right", va="center", size=12)


def _caption(page: Any, scan: Scan, by: str, hidden: int, stray: int) -> None:
    """The grey line at the foot: how many points, how large, and what is not there."""
    parts = [
        f"{len(scan):,} points",
        size(scan),
        "true colours" if by == "color" else f"coloured by {by}",
    ]
    if scan.label is not None:
        parts.append(f"class: {scan.classes.get(scan.label, scan.label)}")
    if hidden:
        parts.append(f"ceiling left out ({number(hidden, 'point')})")
    if stray:
        parts.append(f"{number(stray, 'stray point')} left out")
    page.text(0.5, 14 / HEIGHT, " · ".join(parts), ha="center", va="center", size=11, color="#666")
