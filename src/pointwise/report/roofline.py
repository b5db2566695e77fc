"""The roofline as a drawing: SVG without a script, with a link behind every layer."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pointwise.costs import work_kinds
from pointwise.costs.profiled import Profile, Row
from pointwise.messages import duration, rounded

# Okabe and Ito's colours, and a form for each: either alone tells them apart.
_SIGNS = {
    work_kinds.STANDARD: ("#d55e00", "square"),
    work_kinds.SEPARABLE: ("#0072b2", "circle"),
    work_kinds.INVERTED: ("#0072b2", "square"),
    work_kinds.POINTWISE: ("#56b4e9", "diamond"),
    work_kinds.DEPTHWISE: ("#009e73", "triangle"),
    work_kinds.GROUPED: ("#e69f00", "square"),
    work_kinds.CELL: ("#cc79a7", "circle"),
    work_kinds.CELL_DEPTHWISE: ("#009e73", "triangle"),
    work_kinds.SHIFT: ("#cc79a7", "diamond"),
    work_kinds.LINEAR: ("#e69f00", "diamond"),
}
_OTHER = ("#8a8f98", "cross")
_LEAST = 0.01  # operations per byte; below, numbers are only moved


@dataclass(frozen=True)
class _Frame:
    """A plot of ``width`` × ``height`` whose axes are logarithms of 10."""

    width: int
    height: int
    left: float  # of intensity
    right: float
    low: float  # of 10⁹ operations per second
    high: float

    MARGINS = 58, 16, 14, 46  # left, right, top, bottom

    def x(self, intensity: float) -> float:
        before, after, _, _ = self.MARGINS
        share = (math.log10(intensity) - self.left) / (self.right - self.left)
        return before + share * (self.width - before - after)

    def y(self, rate: float) -> float:
        _, _, above, below = self.MARGINS
        share = (math.log10(rate) - self.low) / (self.high - self.low)
        return self.height - below - share * (self.height - above - below)


def plotted(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """The rows that have a place in the plot, with their numbers: those that compute something."""
    return [
        (number, row)
        for number, row in enumerate(rows)
        if row.count.intensity >= _LEAST and row.milliseconds > 0
    ]


def drawing(found: Profile, width: int, height: int, name: str) -> str:
    """The plot as an ``svg`` element; ``name`` makes its ids unique."""
    rows = plotted(found.rows)
    frame = _frame(found, [row for _, row in rows], width, height)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="group" aria-labelledby="{name}-title">',
        f'<title id="{name}-title">{html.escape(_words(found, len(rows)))}</title>',
        *_axes(frame),
        *_roofs(frame, found),
    ]
    for number, row in sorted(rows, key=lambda entry: -entry[1].milliseconds):
        parts.append(_dot(frame, number, row, found))
    return "".join([*parts, "</svg>"])


def legend(rows: Sequence[Row]) -> str:
    """An item for each kind in the plot."""
    present = {row.kind for _, row in plotted(rows)}
    known = [kind for kind in work_kinds.ORDER if kind in present and kind in _SIGNS]
    items = [(kind, _SIGNS[kind]) for kind in known]
    if others := [kind for kind in work_kinds.ORDER if kind in present and kind not in _SIGNS]:
        items.append((", ".join(others), _OTHER))
    return "".join(
        f'<li><svg viewBox="0 0 16 16" aria-hidden="true">{_form(form, 8, 8, 6, color)}</svg>'
        f"{html.escape(kind)}</li>"
        for kind, (color, form) in items
    )


def _words(found: Profile, count: int) -> str:
    machine = found.machine
    return (
        f"Roofline of {found.cost.network}: {count} layers, below {machine.fma_gflops:.0f} GFLOP/s "
        f"and {machine.bandwidth_gbs:.0f} GB/s. The table of layers has the same numbers."
    )


def _frame(found: Profile, rows: list[Row], width: int, height: int) -> _Frame:
    intensities = [row.count.intensity for row in rows] or [1.0]
    rates = [_rate(row) for row in rows] or [1.0]
    ridge = found.machine.fma_gflops / found.machine.bandwidth_gbs
    return _Frame(
        width,
        height,
        left=math.floor(math.log10(min(*intensities, 1.0)) * 2) / 2,
        right=math.ceil(math.log10(max(*intensities, 4 * ridge)) * 2) / 2,
        low=max(-3.0, math.floor(math.log10(min(*rates, 1.0)) * 2) / 2),
        high=math.log10(found.machine.fma_gflops) + 0.25,
    )


def _rate(row: Row) -> float:
    """10⁹ operations per second."""
    return row.count.operations / (1e6 * row.milliseconds)


def _axes(frame: _Frame) -> list[str]:
    left, _, above, below = frame.MARGINS
    bottom = frame.height - below
    parts = []
    for power in range(math.ceil(frame.left), math.floor(frame.right) + 1):
        x = frame.x(10**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{above}" y2="{bottom}"/>')
        parts.append(
            f'<text class="faint" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">'
            f"{_power(power)}</text>"
        )
    for power in range(math.ceil(frame.low), math.floor(frame.high) + 1):
        y = frame.y(10**power)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{frame.width - 16}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="faint" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_power(power)}</text>"
        )
    middle, half = (left + frame.width - 16) / 2, (above + bottom) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{frame.height - 8}" text-anchor="middle">'
        "operations per byte</text>"
    )
    parts.append(
        f'<text x="14" y="{half:.0f}" text-anchor="middle" transform="rotate(-90 14 {half:.0f})">'
        "GFLOP/s</text>"
    )
    return parts


def _power(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10**power:.{-power}f}"


def _roofs(frame: _Frame, found: Profile) -> list[str]:
    """The lines that no layer can be above: arithmetic, memory, and the fastest cache."""
    machine = found.machine
    peak = machine.fma_gflops
    lines = [(machine.bandwidth_gbs, "memory", "roof")]
    if machine.caches:
        fastest = max(rate for _, rate in machine.caches)
        lines.append((fastest, "cache", "roof dashed"))
    parts = []
    for bandwidth, place, style in lines:
        start = max(10**frame.left, 10**frame.low / bandwidth)
        points = [(start, start * bandwidth), (peak / bandwidth, peak), (10**frame.right, peak)]
        path = " L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in points)
        parts.append(f'<path class="{style}" d="M{path}"/>')
        parts.append(_along(frame, start, bandwidth, peak, f"{place} {bandwidth:.0f} GB/s", place))
    x = frame.width - 20
    parts.append(
        f'<text x="{x}" y="{frame.y(peak) - 6:.1f}" text-anchor="end">'
        f"multiply-adds {peak:.0f} GFLOP/s</text>"
    )
    return parts


def _along(
    frame: _Frame, start: float, bandwidth: float, peak: float, words: str, place: str
) -> str:
    """Words along the slope of a bandwidth, above the cache's line and below the memory's."""
    share = 0.42
    at = start ** (1 - share) * (peak / bandwidth) ** share
    x, y = frame.x(at), frame.y(at * bandwidth)
    rise = frame.y(start * bandwidth) - frame.y(peak)
    angle = -math.degrees(math.atan2(rise, frame.x(peak / bandwidth) - frame.x(start)))
    shift = -7 if place == "cache" else 17
    return (
        f'<text class="faint" text-anchor="middle" '
        f'transform="translate({x:.1f} {y:.1f}) rotate({angle:.1f}) translate(0 {shift})">'
        f"{words}</text>"
    )


def _dot(frame: _Frame, number: int, row: Row, found: Profile) -> str:
    color, form = _SIGNS.get(row.kind, _OTHER)
    size = 4 + 7 * math.sqrt(row.milliseconds / max(each.milliseconds for each in found.rows))
    share = "" if row.share is None else f", {100 * row.share:.0f} % of its roofline"
    words = (
        f"{row.name}, {row.kind}: {duration(row.milliseconds)}, {rounded(_rate(row))} GFLOP/s, "
        f"{rounded(row.count.intensity)} operations per byte{share}, bound by {row.bound}"
    )
    x, y = frame.x(row.count.intensity), frame.y(max(_rate(row), 10**frame.low))
    shown = html.escape(words, quote=True)
    return (
        f'<a href="#layer-{number}" aria-label="{shown}"><title>{shown}</title>'
        f"{_form(form, x, y, size, color)}</a>"
    )


def _form(form: str, x: float, y: float, r: float, color: str) -> str:
    style = f'class="dot" fill="{color}"'
    if form == "circle":
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    corners = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "diamond": [(0, -1.15), (1.15, 0), (0, 1.15), (-1.15, 0)],
        "triangle": [(0, -1.1), (1.1, 0.8), (-1.1, 0.8)],
        "cross": [
            (-0.35, -1),
            (0.35, -1),
            (0.35, -0.35),
            (1, -0.35),
            (1, 0.35),
            (0.35, 0.35),
            (0.35, 1),
            (-0.35, 1),
            (-0.35, 0.35),
            (-1, 0.35),
            (-1, -0.35),
            (-0.35, -0.35),
        ],
    }[form]
    points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return f'<polygon {style} points="{points}"/>'
