"""Figures of matplotlib without its global state: made, and written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pointwise.atomic import replacing
from pointwise.extras import import_extra


def figure(width: float, height: float, **options: Any) -> Any:
    """A white ``matplotlib.figure.Figure`` of so many inches, drawn at 100 dots per inch."""
    module = import_extra("matplotlib.figure", "report")
    return module.Figure(figsize=(width, height), dpi=100, facecolor="white", **options)


def save(figure: Any, path: str | Path) -> None:
    """Writes a figure; the suffix of ``path`` decides the format, PNG where it has none."""
    kind = Path(path).suffix[1:] or "png"
    with replacing(path) as part:
        figure.savefig(part, format=kind, dpi=figure.dpi)
