"""The page that explains convolutions: one HTML file that works offline, put together from parts.

The parts lie beside this file: ``page.html`` (what is there), ``style.css``, and the scripts in
the order of ``SCRIPTS``. ``material.py`` has the numbers that they work on. Nothing here needs
torch: the page computes by itself, and tests hold what it computes against the library.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from pointwise import __version__
from pointwise.atomic import replacing

SCRIPTS = (
    "arithmetic.js",  # convolutions, cells of a cloud, sizes
    "backward.js",  # gradients of inputs and weights
    "costs.js",  # parameters, multiplications, bytes
    "settings.js",  # what the reader chose, and whether it goes together
    "plan.js",  # layers and steps of what was chosen
    "words.js",  # numbers, sentences, tables
    "planes.js",  # channels as grids of coloured cells
    "maps.js",  # all weights at a glance
    "layout.js",  # how large they are drawn
    "picture.js",  # the picture of an image's convolution
    "view3d.js",  # points and kernel cells, to turn
    "cloud.js",  # the picture of a cloud's convolution
    "lessons.js",  # texts and questions
    "link.js",  # settings in the address
    "main.js",  # buttons, keys, playing
)


def write_page(path: str | Path) -> None:
    """Writes the page to ``path``, with everything inside it: styles, scripts and examples."""
    page = build_page()
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def build_page() -> str:
    """The page as text."""
    from pointwise.report.explain.examples import page_data

    folder = files("pointwise.report.explain")
    parts = {
        "style": folder.joinpath("style.css").read_text(encoding="utf-8"),
        "script": "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS),
        "data": _json(page_data()),
        "version": __version__,
    }
    template = folder.joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)


def _json(data: dict) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")
