"""What the tests of the page that explains convolutions share: settings, and asking the page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import pointwise
from pointwise.report.explain import examples, material

IMAGE_KINDS = ("standard", "depthwise", "pointwise", "separable", "grouped")
CLOUD_KINDS = ("cells", "cellsSeparable")

PASSES = ("forward", "input", "weight")

# Chooses a convolution as a reader does, but for the typing.
CHOOSE = """([kind, settings, pass]) => {
    choose(kind, settings, pass);
    take();
}"""

# The plan of some settings: what the page would show of them.
PLAN = """([kind, settings]) => {
    const problem = problemOf(kind, settings);
    if (problem) return {problem: problem.sentence};
    const plan = planOf(kind, settings);
    return {
        layers: plan.layers.map(layer => ({
            x: layer.x, weight: layer.weight, values: layer.values,
            rows: layer.rows, columns: layer.columns, points: layer.points,
        })),
        example: plan.example && plan.example.name,
        steps: plan.steps, cost: plan.cost, bytes: plan.bytesAfter[plan.steps - 1],
        compared: costsOf(plan.job), groups: plan.job.groups,
        multiplications: Array.from({length: plan.steps}, (_, i) => multiplicationsAfter(plan, i)),
    };
}"""


def choose(page, kind: str, way: str = "forward", **given) -> dict:
    """Puts settings into the page, and a pass; returns all settings of the kind."""
    settings = examples.settings_of(kind, given)
    page.evaluate(CHOOSE, [kind, settings, way])
    return settings


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


def weights_of(kind: str, layers: list[dict], kernel: int) -> list[Tensor]:
    """The weights that the page shows, in the library's shapes."""
    found = [torch.tensor(layer["weight"], dtype=torch.float64) for layer in layers]
    if kind in CLOUD_KINDS:  # the page keeps the cells of a kernel flat
        found[0] = found[0].unflatten(2, (kernel, kernel, kernel))
    return found


def library_outputs(kind: str, settings: dict, plan: dict, absolute: bool = False) -> list[Tensor]:
    """What the library makes of a plan's inputs and weights: each layer's outputs ``[C, P]``.

    ``absolute`` is for bounds on rounding: all numbers without their signs.
    """
    sign = torch.abs if absolute else lambda tensor: tensor
    layers = plan["layers"]
    x = sign(torch.tensor(layers[0]["x"], dtype=torch.float64))
    weights = [sign(weight) for weight in weights_of(kind, layers, settings["kernel"])]
    given = [torch.tensor(layers[0]["points"], dtype=torch.float64)] if kind in CLOUD_KINDS else []
    between, output = convolve(kind, settings, x, *given, weights)
    found = [output] if between is None else [between, output]
    return [one.T if kind in CLOUD_KINDS else one.flatten(1) for one in found]


def neighborhood(settings: dict, plan: dict):
    """The library's neighbourhood of a plan's points."""
    points = torch.tensor(plan["layers"][0]["points"], dtype=torch.float64)
    return pointwise.PointCloud(points).neighborhood(
        settings["cellSize"], settings["kernel"], settings["dilation"]
    )


def shown(value: float) -> str:
    """A number as the page writes it: at most three digits behind the point, a true minus."""
    thousandths = int(abs(value) * 1000 + 0.5)
    text = f"{thousandths / 1000:.3f}".rstrip("0").rstrip(".")
    return ("−" if value < 0 and thousandths else "") + text


def divisors(*numbers: int) -> list[int]:
    return [n for n in range(1, 9) if all(number % n == 0 for number in numbers)]


def image_table() -> list[tuple[str, dict]]:
    """Settings of all kinds at random, the smallest and the largest."""
    rng = np.random.default_rng(5)
    table = []
    for i in range(90):
        c_in, c_out = rng.integers(1, 9, 2).tolist()
        settings = {
            "height": int(rng.integers(1, 14)),
            "width": int(rng.integers(1, 14)),
            "channelsIn": c_in,
            "channelsOut": c_out,
            "kernel": int(rng.integers(1, 6)),
            "stride": int(rng.integers(1, 5)),
            "padding": ["same", 0, 1, 2, 4][rng.integers(5)],
            "dilation": int(rng.integers(1, 4)),
            "multiplier": int(rng.integers(1, 4)),
            "groups": int(rng.choice(divisors(c_in, c_out))),
        }
        table.append((IMAGE_KINDS[i % 5], settings))
    one = dict.fromkeys(("height", "width", "channelsIn", "channelsOut", "kernel"), 1)
    for kind in IMAGE_KINDS:
        table.append((kind, {**examples.IMAGE, **one, "groups": 1}))
        table.append((kind, {**examples.IMAGE, "height": 16, "width": 16, "channelsIn": 8,
                             "channelsOut": 8, "kernel": 7, "multiplier": 2,
                             "groups": 4}))  # fmt: skip
    return table


def cloud_table() -> list[tuple[str, dict]]:
    rng = np.random.default_rng(6)
    table = []
    for i in range(30):
        settings = {
            "points": int(rng.integers(1, 97)),
            "channelsIn": int(rng.integers(1, 5)),
            "channelsOut": int(rng.integers(1, 5)),
            # multiples of 0.05: the edges of cells pass through points
            "cellSize": round(0.05 * int(rng.integers(1, 30)), 2),
            "kernel": int(rng.choice([1, 3, 5])),
            "dilation": int(rng.integers(1, 5)),
        }
        table.append((CLOUD_KINDS[i % 2], settings))
    return table


def fitting(plans, kinds):
    return [(kind, s, plan) for kind, s, plan in plans if kind in kinds and "problem" not in plan]


def closed_formula(kind: str, settings: dict, plan: dict) -> tuple[int, int]:
    """Parameters and multiplications from the sizes alone (Howard et al., 2017, section 3.1)."""
    c_in, c_out = settings["channelsIn"], settings["channelsOut"]
    points = len(plan["layers"][-1]["values"][0])
    if kind in CLOUD_KINDS:
        query, cell, _ = neighborhood(settings, plan).decode()
        meetings = len(torch.unique(query * settings["kernel"] ** 3 + cell))
        taps, wide = settings["kernel"] ** 3, c_in
    else:
        taps, wide = settings["kernel"] ** 2, c_in * settings["multiplier"]
        meetings = taps * points
    halves = {
        "standard": [(c_out * c_in, taps, meetings)],
        "cells": [(c_out * c_in, taps, meetings)],
        "grouped": [(c_out * c_in // settings.get("groups", 1), taps, meetings)],
        "depthwise": [(wide, taps, meetings)],
        "pointwise": [(c_out * c_in, 1, points)],
        "separable": [(wide, taps, meetings), (c_out * wide, 1, points)],
        "cellsSeparable": [(wide, taps, meetings), (c_out * wide, 1, points)],
    }[kind]
    return sum(n * taps for n, taps, _ in halves), sum(n * used for n, _, used in halves)
