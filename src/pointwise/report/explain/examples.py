"""The numbers inside the page: what its convolutions work on, and examples the library computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import pointwise
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
        "version": pointwise.__version__,
        "image": {
            "picture": _plain(material.picture()),
            "names": material.CHANNEL_NAMES,
            "weights": _plain(material.image_weights()),
            "start": IMAGE,
        },
        "cloud": {
            "points": _plain(points),
            "features": _plain(features),
            "names": material.FEATURE_NAMES,
            "weights": _plain(material.cloud_weights()),
            "start": CLOUD,
        },
        "examples": [example(*given) for given in EXAMPLES],
    }


def example(name: str, kind: str, given: dict) -> dict:
    """One example: its settings, input, weights, what lies between two halves, and the output."""
    on_cloud = kind in ("cells", "cellsSeparable")
    settings = {**(CLOUD if on_cloud else IMAGE), **given}
    operands = cloud_operands(kind, settings) if on_cloud else image_operands(kind, settings)
    between, output = convolve(kind, settings, *operands)
    found = {"input": operands[0], "weights": operands[-1], "between": between, "output": output}
    if on_cloud:
        found["points"] = operands[1]
    return {"name": name, "kind": kind, "settings": settings, **_plain(found)}


def image_operands(kind: str, settings: dict) -> tuple[Tensor, list[Tensor]]:
    """The input ``[C_in, H, W]`` and the weights of a convolution on the picture, float64."""
    weights = material.image_weights()
    c_in, c_out, size = (settings[key] for key in ("channelsIn", "channelsOut", "kernel"))
    x = material.picture()[:c_in, : settings["height"], : settings["width"]]
    groups = settings["groups"] if kind == "grouped" else 1
    wide = c_in * settings["multiplier"]
    chosen = {
        "standard": lambda: [weights["standard"][size][:c_out, :c_in]],
        "grouped": lambda: [weights["standard"][size][:c_out, : c_in // groups]],
        "depthwise": lambda: [weights["depthwise"][size][:wide]],
        "pointwise": lambda: [weights["standard"][1][:c_out, :c_in]],
        "separable": lambda: [weights["depthwise"][size][:wide], weights["mix"][:c_out, :wide]],
    }[kind]()
    return torch.tensor(x), [torch.tensor(weight) for weight in chosen]


def cloud_operands(kind: str, settings: dict) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Features ``[N, C_in]``, points ``[N, 3]`` and weights of one on the cloud, float64."""
    weights = material.cloud_weights()
    points, features = material.cloud()
    rows = material.chosen(settings["points"])
    c_in, c_out, size = (settings[key] for key in ("channelsIn", "channelsOut", "kernel"))
    chosen = {
        "cells": lambda: [weights["standard"][size][:c_out, :c_in]],
        "cellsSeparable": lambda: [
            weights["depthwise"][size][:c_in],
            weights["mix"][:c_out, :c_in],
        ],
    }[kind]()
    x = torch.tensor(features[rows, :c_in])
    return x, torch.tensor(points[rows]), [torch.tensor(weight) for weight in chosen]


def convolve(kind: str, settings: dict, x: Tensor, *rest) -> tuple[Tensor | None, Tensor]:
    """What lies between the halves of a separable convolution (else None), and the output."""
    *points, weights = rest
    if points:
        cloud = pointwise.PointCloud(points[0])
        where = cloud.neighborhood(settings["cellSize"], settings["kernel"], settings["dilation"])
        if kind == "cells":
            return None, pointwise.cell_conv(x, where, *weights)
        between = pointwise.cell_depthwise_conv(x, where, weights[0])
        return between, pointwise.cell_separable_conv(x, where, *weights)
    how = {key: settings[key] for key in ("stride", "padding", "dilation")}
    whole: Callable[..., Tensor] = pointwise.conv2d
    if kind == "separable":
        between = pointwise.depthwise_conv2d(x, weights[0], **how)
        return between, pointwise.depthwise_separable_conv2d(x, *weights, **how)
    if kind == "grouped":
        how["groups"] = settings["groups"]
    elif kind == "depthwise":
        whole = pointwise.depthwise_conv2d
    elif kind == "pointwise":
        whole, how = pointwise.pointwise_conv2d, {"stride": settings["stride"]}
    return None, whole(x, *weights, **how)


def _plain(data):
    """Arrays as lists, whole numbers without a point, dictionaries and lists gone through."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, Tensor):
        return _plain(data.numpy())
    if isinstance(data, np.ndarray):
        return _plain(data.tolist())
    if isinstance(data, list):
        return [_plain(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data
