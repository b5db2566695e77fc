"""A profile as a page: one HTML file that needs no network, and no script to be read."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from pointwise.atomic import replacing
from pointwise.costs import work_kinds
from pointwise.costs.alike import far
from pointwise.costs.machine import threads_of
from pointwise.costs.profiled import Profile, Row
from pointwise.costs.tables import milliseconds, short
from pointwise.messages import duration, rounded
from pointwise.report.roofline import drawing, legend, plotted
from pointwise.timing.load import verdict_of

_WIDE, _NARROW = (1040, 520), (370, 400)  # of the plot

_COLUMNS = (
    ("layer", True),
    ("kind", True),
    ("ms", False),
    ("% of time", False),
    ("parameters", False),
    ("multiply-adds", False),
    ("bytes", False),
    ("operations per byte", False),
    ("GFLOP/s", False),
    ("% of roofline", False),
    ("bound by", True),
    ("measured", True),
)
"""Heads, and whether there are words below."""


def write_page(found: Profile, path: str | Path) -> None:
    """Writes the page; the file appears whole or not at all."""
    machine = found.machine
    count = len(found.rows) - len(plotted(found.rows))
    parts = {
        "title": html.escape(f"{found.cost.network} · {duration(found.milliseconds)}"),
        "about": html.escape(
            f"{found.inputs}; {machine.cpu}, {threads_of(machine)}, "
            f"{machine.fma_gflops:.0f} GFLOP/s, {machine.bandwidth_gbs:.0f} GB/s"
            + (f". {verdict_of(found.busy)}" if found.busy else "")
        ),
        "tiles": _tiles(found),
        "roofline_wide": drawing(found, *_WIDE, "wide"),
        "roofline_narrow": drawing(found, *_NARROW, "narrow"),
        "legend": legend(found.rows),
        "roofline_caption": (
            "The dashed line is for layers whose bytes fit into the fastest cache, the full one "
            "for those that go to memory; each layer's own limit is between them, by how much it "
            "moves."
            + (f" Rows that compute next to nothing are not shown: {count}." if count else "")
        ),
        "bars": _bars(found),
        "sum": html.escape(
            f"The layers take {duration(found.sum_ms)} together, the network "
            f"{duration(found.milliseconds)} when nothing inside is timed. At their rooflines they "
            f"would take {duration(found.limit_ms)}."
        ),
        "far": _far(found),
        "heads": _heads(),
        "rows": "".join(_row(number, row, found) for number, row in enumerate(found.rows)),
        "total": _total(found),
        "kinds": _kinds(found),
        "notes": _notes(found),
    }
    template = files("pointwise.report").joinpath("profile.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def _tiles(found: Profile) -> str:
    count = found.count
    tiles = [
        ("time", duration(found.milliseconds)),
        ("parameters", short(count.parameters)),
        ("multiply-adds", _at_most(count.multiply_adds, count.exact)),
        ("read and written", f"{short(count.bytes)}B"),
        ("activations, at most", f"{short(found.cost.peak_bytes)}B"),
        ("of the roofline", _percent(found.limit_ms / found.milliseconds, found)),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)


def _percent(share: float, found: Profile) -> str:
    """A share of the roofline; on a busy machine neither side of it is known."""
    return "–" if found.busy else f"{100 * share:.0f} %"


def _at_most(number: int, exact: bool) -> str:
    return short(number) if exact else f"≤ {short(number)}"


def _bars(found: Profile) -> str:
    longest = max(row.milliseconds for row in found.rows)
    return "".join(_bar(row, longest) for row in found.rows)


def _bar(row: Row, longest: float) -> str:
    name = html.escape(row.name)
    whole = 100 * row.milliseconds / longest
    least = 100 * min(row.limit_ms, row.milliseconds) / longest
    return (
        f'<li><span class="name" title="{name}">{_breakable(row.name)}</span>'
        f'<span class="bar" aria-hidden="true"><span style="width: {whole:.2f}%"></span>'
        f'<span class="least" style="width: {least:.2f}%"></span></span>'
        f'<span class="ms">{milliseconds(row.milliseconds)} ms</span></li>'
    )


def _far(found: Profile) -> str:
    """Those that lose more than a hundredth of the time, and why."""
    if found.busy:
        return f"<p>{html.escape(verdict_of(found.busy))}</p>"
    groups = far(found)
    if not groups:
        return "<p>No layer that counts is.</p>"
    items = "".join(
        f"<li><strong>{html.escape(group.names)}</strong>"
        f" lose{'s' * (len(group.rows) == 1)} {milliseconds(group.lost_ms)} ms "
        f"({group.bound}): {html.escape(group.reason)}.</li>"
        for group in groups
    )
    return f"<ul>{items}</ul>"


def _heads() -> str:
    return "".join(
        f'<th scope="col" class="{"words" if words else "numbers"}">'
        f'<button type="button">{name}</button></th>'
        for name, words in _COLUMNS
    )


def _row(number: int, row: Row, found: Profile) -> str:
    count, time = row.count, row.milliseconds
    gflops = count.operations / (1e6 * time) if time > 0 else 0.0
    cells = [
        f'<th scope="row">{_breakable(row.name)}</th>',
        _words(row.kind if count.bytes else ""),
        _number(time, milliseconds(time)),
        _number(time / found.sum_ms, f"{100 * time / found.sum_ms:.1f}"),
        _number(count.parameters, short(count.parameters)),
        _number(count.multiply_adds, _at_most(count.multiply_adds, count.exact)),
        _number(count.bytes, _at_most(count.bytes, count.exact)),
        _number(count.intensity, rounded(count.intensity) if count.bytes else ""),
        _number(gflops, rounded(gflops) if gflops else ""),
        _number(
            -1 if row.share is None else row.share,
            "" if row.share is None else _percent(row.share, found).removesuffix(" %"),
        ),
        _words(row.bound),
        f'<td class="reason">{html.escape(row.reason)}</td>',
    ]
    return f'<tr id="layer-{number}">{"".join(cells)}</tr>'


def _total(found: Profile) -> str:
    count = found.count
    share = found.limit_ms / found.milliseconds
    cells = [
        "",
        milliseconds(found.milliseconds),
        "",
        short(count.parameters),
        _at_most(count.multiply_adds, count.exact),
        _at_most(count.bytes, count.exact),
        rounded(count.intensity),
        rounded(count.operations / (1e6 * found.milliseconds)),
        _percent(share, found).removesuffix(" %"),
        "",
        "",
    ]
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr class="total"><th scope="row">the whole network</th>{body}</tr>'


def _kinds(found: Profile) -> str:
    parts = []
    for kind, count in found.cost.by_kind().items():
        cells: Iterable[str] = (
            short(count.parameters),
            _at_most(count.multiply_adds, count.exact),
            _at_most(count.operations, count.exact),
            _at_most(count.bytes, count.exact),
            rounded(count.intensity),
        )
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        meaning = html.escape(work_kinds.MEANING[kind], quote=True)
        parts.append(f'<tr><th scope="row" title="{meaning}">{kind}</th>{body}</tr>')
    return "".join(parts)


def _notes(found: Profile) -> str:
    lines = [
        "Layers are timed where they stand, as the network runs in inference without gradients; of "
        "each, the median. Layers that ran as one launch are one row: their norms are folded into "
        "the weights, activations and residuals are applied on the way.",
        "The roofline is the machine's rate of multiply-adds and the bandwidth of the cache or "
        "memory that so many bytes fit into, both measured in this run. Products with the zeros of "
        "a padding are counted, but not asked of the roofline.",
        "What bounds a layer that is far from its roofline comes from more measurements: its time "
        "on one thread, with twice the batch, and when it runs a second time at once.",
        *found.cost.notes(),
    ]
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _breakable(name: str) -> str:
    """A path that may go on in the next line behind its dots."""
    return re.sub(r"([.+])", r"\1<wbr>", html.escape(name))


def _number(value: float, shown: str) -> str:
    return f'<td data-value="{value:.6g}">{shown}</td>'


def _words(shown: str) -> str:
    return f'<td class="words">{html.escape(shown)}</td>'
