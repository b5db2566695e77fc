"""A scan as a page: one HTML file that works offline, with the cloud to turn, zoom and ask."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.extras import import_extra
from pointwise.report.coloring import (
    RIGHT_COLOR,
    WRONG_COLOR,
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
    ways,
    wrong_labels,
)

Box = tuple[np.ndarray, np.ndarray]  # the lowest and the highest corner, [3] each


def write_page(
    scan: Scan,
    path: str | Path,
    *,
    title: str | None = None,
    by: str | None = None,
    most: int = 200_000,
    truth: np.ndarray | None = None,
) -> None:
    """Writes a scan as one HTML page with everything inside it, plotly.js included.

    ``by`` is what the page opens with: ``label``, ``color``, ``intensity`` or ``height``; its
    buttons switch between those the scan has. More than ``most`` points are thinned at random,
    always the same way, with at least a few of every class. With ``truth`` ``[N]``, the true
    labels of a scan that a network has labelled, buttons show them and the errors as well. Raises
    ValueError where the scan has no point to show or not what ``by`` asks for.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1 point, got {most}")
    start = choose(scan, by)
    if truth is not None:
        if scan.labels is None or truth.shape != scan.labels.shape:
            raise ValueError("truth needs a scan with labels, and one true label for each point")
        scan = replace(scan, fields={**scan.fields, "truth": truth})
    whole = shown(scan)
    few = whole.select(thin(whole, most))
    title = title or called(scan)
    box = frame(whole.points)
    offline = import_extra("plotly.offline", "report")
    parts = {
        "title": html.escape(title),
        "plotly": offline.get_plotlyjs(),
        "scene": _json(_scene(whole, few, box, title, start, _about(scan, whole, few, box))),
    }
    template = files("pointwise.report").joinpath("scene.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8", errors="replace")


def thin(scan: Scan, most: int, seed: int = 0) -> np.ndarray:
    """The ascending indices of at most ``most`` points, drawn at random by ``seed``.

    A quarter of them is divided equally among the classes, so that a rare one stays visible.
    """
    if len(scan) <= most:
        return np.arange(len(scan))
    labels = np.zeros(len(scan), np.int64) if scan.labels is None else scan.labels
    random = np.random.default_rng(seed).random(len(scan))
    _, first, counts = np.unique(np.sort(labels), return_index=True, return_counts=True)
    sure = np.minimum(counts, most // (4 * len(counts)))
    rest = counts - sure
    quota = sure + (rest * (most - sure.sum()) // rest.sum())
    quota[counts.argmax()] += most - quota.sum()  # what rounding down has left
    order = np.lexsort((random, labels))  # class by class, shuffled inside each
    rank = np.arange(len(scan)) - np.repeat(first, counts)
    return np.sort(order[rank < np.repeat(quota, counts)])


def _scene(whole: Scan, few: Scan, box: Box, title: str, start: str, about: str) -> dict:
    """All that the page's script reads: the figure, the ways to colour it, the true origin."""
    low, high = box
    origin = np.floor((low + high) / 2)  # float32 keeps every digit near zero, not at UTM scale
    classes = groups(few)
    masks = [group.mask for group in classes] or [np.ones(len(few), bool)]
    return {
        "title": title,
        "about": about,
        "start": start,
        "origin": origin.tolist(),
        "digits": int(np.clip(4 - np.floor(np.log10(max((high - low).max(), 1e-6))), 0, 6)),
        "figure": _figure(whole, few, classes, masks, _axes(box, origin), origin),
        "classColors": [group.color for group in classes],
        "classNames": [group.name for group in classes],
        **_truth(few, masks),
        "ways": {way: _way(few, way, masks, origin) for way in _ways(few)},
    }


def _ways(few: Scan) -> list[str]:
    """What the page's buttons offer; the truth and the errors stand beside the labels."""
    first, *rest = ways(few)
    return [first, "truth", "errors", *rest] if "truth" in few.fields else [first, *rest]


def _truth(few: Scan, masks: list[np.ndarray]) -> dict:
    """The names of the true classes and, for each trace, which of them its points are."""
    if "truth" not in few.fields:
        return {}
    real = groups(replace(few, labels=few.fields["truth"]))
    which = _which(few, real)
    return {
        "truthNames": [group.name for group in real],
        "truth": [_encode(which[mask]) for mask in masks],
    }


def _which(few: Scan, classes: list[Group]) -> np.ndarray:
    """The place in ``classes`` of each point's group, ``[N]``."""
    which = np.zeros(len(few), np.float32)
    for place, group in enumerate(classes):
        which[group.mask] = place
    return which


def _steps(colors: list[str]) -> dict:
    """A scale on which the whole numbers from 0 have these colours."""
    count = len(colors)
    scale = [[at / count, color] for i, color in enumerate(colors) for at in (i, i + 1)]
    return {"colorscale": scale, "cmin": -0.5, "cmax": count - 0.5, "showscale": False}


def _figure(
    whole: Scan,
    few: Scan,
    classes: list[Group],
    masks: list[np.ndarray],
    sides: list[dict],
    origin: np.ndarray,
) -> dict:
    """The points, a trace for each class, the entries of the legend, and the axes.

    The points' colours are for the page's script to fill in.
    """
    go = import_extra("plotly.graph_objects", "report")
    # No further than float32 reaches, and a good deal less for the page's own arithmetic.
    positions = (few.points - origin).clip(-1e30, 1e30).astype(np.float32)
    total = {group.code: int(group.mask.sum()) for group in groups(whole)}
    above = ceiling(few)
    figure = go.Figure(layout={"template": "none"})
    style = {"mode": "markers", "hoverinfo": "none"}
    for index, mask in enumerate(masks):
        x, y, z = positions[mask].T
        hides_the_room = bool(above[mask].all()) and not above.all()
        figure.add_scatter3d(
            x=x,
            y=y,
            z=z,
            marker={"size": _marker_size(len(few)), "opacity": 1, "line": {"width": 0}},
            legendgroup=str(index),
            showlegend=False,
            visible="legendonly" if hides_the_room else True,
            **style,
        )
    for index, group in enumerate(classes):  # its own trace, or it would lose the class's colour
        name = f"{group.name} · {total[group.code]:,} · {share(total[group.code], len(whole))}"
        figure.add_scatter3d(
            x=[None],
            y=[None],
            z=[None],
            name=html.escape(name, quote=False),
            marker={"size": 8, "color": group.color},
            legendgroup=str(index),
            showlegend=True,
            visible=figure.data[index].visible,
            **style,
        )
    longest = max(high - low for low, high in (side["range"] for side in sides))
    ratio = [(side["range"][1] - side["range"][0]) / longest for side in sides]
    figure.update_layout(
        scene={
            **dict(zip(("xaxis", "yaxis", "zaxis"), sides, strict=True)),
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", ratio, strict=True)),
            "dragmode": "turntable",
        },
        legend={"itemsizing": "constant", "itemclick": "toggle", "itemdoubleclick": "toggleothers"},
        uirevision="kept",
    )
    return json.loads(figure.to_json())


def _axes(box: Box, origin: np.ndarray) -> list[dict]:
    """The three axes: equal in scale, relative to ``origin``, with ticks that tell the truth."""
    low, high = box
    longest = (high - low).max() or 1.0
    axes = []
    for side in range(3):
        middle = (low[side] + high[side]) / 2
        half = max((high[side] - low[side]) / 2, 0.02 * longest) * 1.02  # a plane keeps some room
        count = max(1, round(10 * half / longest))
        values, texts = ticks(middle - half, middle + half, count)
        axes.append(
            {
                "range": [middle - half - origin[side], middle + half - origin[side]],
                "tickvals": [value - origin[side] for value in values],
                "ticktext": texts,
                "title": {"text": "xyz"[side]},
            }
        )
    return axes


def frame(points: np.ndarray) -> Box:
    """The corners of the box to look at: that of all points, unless a few strays, such as birds
    and echoes from below, would make it more than five times as long as the rest needs."""
    points = find_extent(points).kept
    low, high = points.min(0), points.max(0)
    inner_low, inner_high = np.quantile(points, (0.001, 0.999), axis=0)
    needed = (inner_high - inner_low).max()
    if len(points) < 1000 or needed == 0:
        return low, high
    stray = high - low > 5 * needed
    room = 0.1 * needed
    return np.where(stray, inner_low - room, low), np.where(stray, inner_high + room, high)


def ticks(low: float, high: float, count: int) -> tuple[list[float], list[str]]:
    """At most ``count`` intervals of round numbers in ``low`` … ``high``, and how to write them."""
    ticker = import_extra("matplotlib.ticker", "report")
    values = [
        float(v) for v in ticker.MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    ]
    inside = [value for value in values if low <= value <= high] or [(low + high) / 2]
    step = values[1] - values[0]
    digits = next(d for d in range(13) if d == 12 or abs(round(step, d) - step) < step / 1000)
    return inside, [f"{value:,.{digits}f}" for value in inside]


def _way(few: Scan, way: str, masks: list[np.ndarray], origin: np.ndarray) -> dict:
    """One way to colour: the values of each trace, and the scale that turns them to colours."""
    if way == "label":
        return {}
    if way == "truth":
        real = groups(replace(few, labels=few.fields["truth"]))
        both = {group.name: group.color for group in [*groups(few), *real]}
        which = _which(few, real)
        steps = _steps([both[group.name] for group in real])
        return {"values": [_encode(which[mask]) for mask in masks], "scale": steps}
    if way == "errors":
        assert few.labels is not None
        wrong = wrong_labels(few.fields["truth"], few.labels).astype(np.float32)
        scale = _steps([RIGHT_COLOR, WRONG_COLOR])
        return {"values": [_encode(wrong[mask]) for mask in masks], "scale": scale}
    if way == "color":
        colors, scale = _indexed(few.fields["color"])
        return {"values": [_encode(colors[mask]) for mask in masks], "scale": scale}
    if way == "height":  # the traces have it as z
        values, offset, name = find_extent(few.points).kept[:, 2], origin[2], "Viridis"
    else:
        values, offset, name = few.fields["intensity"].astype(np.float32), 0.0, "Cividis"
    low, high = stretch(values)
    at, texts = ticks(low, high, 6)
    scale = {
        "colorscale": name,
        "cmin": low - offset,
        "cmax": high - offset,
        "colorbar": {"tickvals": [value - offset for value in at], "ticktext": texts},
        "showscale": True,
    }
    if way == "height":
        return {"scale": scale}
    known = np.where(np.isfinite(values), values, np.float32(low))
    return {"values": [_encode(known[mask]) for mask in masks], "scale": scale}


def _indexed(colors: np.ndarray) -> tuple[np.ndarray, dict]:
    """Colours ``[N, 3]`` as one byte each into the best 256 of them, the way a GIF has them.

    Plotly wants either a scale or a string for every point; the strings would outweigh the cloud.
    """
    image = import_extra("PIL.Image", "report")
    picture = image.fromarray(np.ascontiguousarray(colors[None], dtype=np.uint8), "RGB")
    indexed = picture.quantize(256, method=image.Quantize.MEDIANCUT, dither=image.Dither.NONE)
    table = np.array(indexed.getpalette()).reshape(-1, 3)
    table = np.concatenate([table, np.zeros((256 - len(table), 3), table.dtype)])[:256]
    scale = [[i / 255, "rgb({},{},{})".format(*entry)] for i, entry in enumerate(table)]
    return np.asarray(indexed)[0], {"colorscale": scale, "cmin": 0, "cmax": 255, "showscale": False}


def _encode(values: np.ndarray) -> dict[str, str]:
    """An array as plotly writes it: its type and its bytes in base64."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    kind = {"float32": "f4", "uint8": "u1"}[values.dtype.name]
    return {"dtype": kind, "bdata": base64.b64encode(little.tobytes()).decode("ascii")}


def _marker_size(count: int) -> float:
    """Pixels across, so that a few points can be seen and many do not become one blob."""
    return float(np.clip(round(38 * count**-0.3, 1), 1, 6))


def _about(scan: Scan, whole: Scan, few: Scan, box: Box) -> str:
    """The line under the title."""
    parts = [number(len(whole), "point")]
    if len(few) < len(whole):
        parts = [f"showing {len(few):,} of {number(len(whole), 'point')}"]
    if len(whole) < len(scan):
        parts.append(f"{len(scan) - len(whole):,} without finite coordinates left out")
    parts.append(size(whole))
    if stray := int(((whole.points < box[0]) | (whole.points > box[1])).any(1).sum()):
        parts.append(f"{number(stray, 'stray point')} outside the frame")
    if scan.label is not None:
        parts.append(f"class: {scan.classes.get(scan.label, scan.label)}")
    if "truth" in whole.fields and whole.labels is not None:
        known = int((whole.fields["truth"] != UNLABELLED).sum())
        wrong = int(wrong_labels(whole.fields["truth"], whole.labels).sum())
        parts.append(f"{share(wrong, max(known, 1))} labelled wrongly")
    return " · ".join(parts)


def _json(content: dict) -> str:
    """JSON that can stand inside a script element: no ``<``, so nothing in it can end one."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")
