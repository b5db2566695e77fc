"""What the page opens with, the examples that it offers, and the numbers that both work on."""

from __future__ import annotations

import numpy as np

from pointwise.report.explain import material

# What the page opens with; an example names what it has otherwise.
IMAGE = {
    "height": 8,
    "width": 8,
    "channelsIn": 4,
    "channelsOut": 4,
    "kernel": 3,
    "stride": 1,
    "padding": "same",
    "dilation": 1,
    "multiplier": 1,
    "groups": 2,
}
CLOUD = {
    "points": 60,
    "channelsIn": 2,
    "channelsOut": 3,
    "cellSize": 0.35,
    "kernel": 3,
    "dilation": 1,
}

EXAMPLES: tuple[tuple[str, str, dict], ...] = (
    ("Standard: a house", "standard", {}),
    ("Standard: every second pixel", "standard", {"stride": 2, "padding": 1}),
    ("Standard: no padding", "standard", {"channelsIn": 1, "channelsOut": 2, "padding": 0}),
    ("Standard: dilation 2", "standard", {"channelsIn": 2, "channelsOut": 2, "dilation": 2}),
    ("Depthwise: one kernel each", "depthwise", {}),
    ("Depthwise: two kernels each", "depthwise", {"multiplier": 2, "channelsIn": 3}),
    ("Pointwise: pixel by pixel", "pointwise", {}),
    ("Pointwise: six to two", "pointwise", {"channelsIn": 6, "channelsOut": 2}),
    ("Separable: in two halves", "separable", {}),
    ("Separable: every second pixel", "separable", {"stride": 2, "channelsOut": 6}),
    ("Grouped: two groups", "grouped", {}),
    ("Grouped: three groups", "grouped", {"channelsIn": 6, "channelsOut": 3, "groups": 3}),
    ("Cloud: a table on the floor", "cells", {}),
    ("Cloud: dilation 2 (à trous)", "cells", {"dilation": 2, "cellSize": 0.25}),
    ("Cloud: 5 × 5 × 5 cells", "cells", {"kernel": 5, "cellSize": 0.2, "channelsOut": 1}),
    ("Cloud, separable", "cellsSeparable", {}),
    ("Cloud, separable: dilation 2", "cellsSeparable", {"dilation": 2, "cellSize": 0.2}),
)  # fmt: skip


def page_data() -> dict:
    """All that the page's scripts read, ready for JSON."""
    points, features = material.cloud()
    return {
        "image": {
            "picture": _plain(material.picture()),
            "names": material.CHANNEL_NAMES,
            "weights": _plain(material.image_weights()),
            "start": IMAGE,
        },
        "cloud": {
            "points": _plain(points),
            "features": _plain(features),
            "weights": _plain(material.cloud_weights()),
            "start": CLOUD,
        },
        "examples": [
            {"name": name, "kind": kind, "settings": settings_of(kind, given)}
            for name, kind, given in EXAMPLES
        ],
    }


def settings_of(kind: str, given: dict) -> dict:
    """All settings of an example."""
    return {**(CLOUD if kind in ("cells", "cellsSeparable") else IMAGE), **given}


def _plain(data):
    """Arrays as lists, whole numbers without a point, dictionaries and lists gone through."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, np.ndarray):
        return _plain(data.tolist())
    if isinstance(data, list):
        return [_plain(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data
