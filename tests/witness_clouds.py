"""The witness's entries of point clouds: search, voxels, every function and every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from witness_inputs import Draw

import pointwise as pw

Entry = tuple[str, Callable[[Draw], Any]]
FLOATS = (torch.float32, torch.float64)
KERNELS = ((1, 1), (3, 1), (3, 2), (3, 4), (5, 1), (5, 2))


def entries() -> Iterator[Entry]:
    for dtype in FLOATS:
        for name in CLOUDS:
            yield f"cloud search {name} {dtype}", partial(_search, name, dtype)
            yield f"cloud voxels {name} {dtype}", partial(_voxels, name, dtype)
            yield f"cloud convolutions {name} {dtype}", partial(_small, name, dtype)
        for kernel in KERNELS:
            yield f"cloud cell_conv {kernel} {dtype}", partial(_cell_conv, kernel, dtype)
        for channels in ((1, 1), (3, 9), (9, 13), (17, 33), (32, 64), (64, 5)):
            yield f"cloud channels {channels} {dtype}", partial(_channels, channels, dtype)
        yield f"cloud queries {dtype}", partial(_queries, dtype)
        yield f"cloud not finite {dtype}", partial(_not_finite, dtype)
        yield f"cloud layers {dtype}", partial(_layers, dtype)
    yield "cloud half precision", _half
    yield "cloud large", _large


# --- clouds ---------------------------------------------------------------------------------------


def _several(draw: Draw) -> tuple[Tensor, list[int]]:
    return draw.uniform(300, 3, dtype=torch.float64), [0, 0, 120, 121, 300]


def _duplicates(draw: Draw) -> tuple[Tensor, list[int]]:
    points = draw.uniform(90, 3, dtype=torch.float64)
    return torch.cat((points, points[:60], points[:1].expand(30, 3))), [0, 180]


def _lattice(draw: Draw) -> tuple[Tensor, list[int]]:
    """Points that lie on the borders of one another's cells."""
    axis = torch.arange(5, dtype=torch.float64) * 0.125
    return torch.cartesian_prod(axis, axis, axis), [0, 125]


CLOUDS: dict[str, Callable[[Draw], tuple[Tensor, list[int]]]] = {
    "several": _several,
    "one": lambda draw: (draw.uniform(400, 3, dtype=torch.float64), [0, 400]),
    "empty": lambda draw: (torch.zeros(0, 3, dtype=torch.float64), [0, 0]),
    "a point": lambda draw: (draw.uniform(1, 3, dtype=torch.float64), [0, 1]),
    "duplicates": _duplicates,
    "lattice": _lattice,
    "far away": lambda draw: (
        torch.tensor([4e5, 5e6, 100.0], dtype=torch.float64)
        + draw.uniform(200, 3, dtype=torch.float64),
        [0, 200],
    ),
    "spread out": lambda draw: (1000 * draw.normal(200, 3, dtype=torch.float64), [0, 200]),
}


def _cloud(draw: Draw, name: str, dtype: torch.dtype) -> pw.PointCloud:
    points, offsets = CLOUDS[name](draw)
    return pw.PointCloud(points.to(dtype), torch.tensor(offsets))


# --- entries --------------------------------------------------------------------------------------


def _search(name: str, dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud, found = _cloud(draw, name, dtype), {}
    for size in (0.125, 0.3):
        for kernel, dilation in KERNELS:
            near = cloud.neighborhood(size, kernel, dilation)
            found[f"{size} {kernel} {dilation}"] = (near.row_start, near.pairs, near.symmetric)
    return found


def _voxels(name: str, dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud, found = _cloud(draw, name, dtype), {}
    for size in (0.05, 0.3, 2.0):
        voxels, parent = cloud.voxels(size)
        found[str(size)] = (voxels.points, voxels.offsets, parent)
    return found


def _all(draw: Draw, near: pw.Neighborhood, features: Tensor, out: int) -> dict[str, Any]:
    """Every convolution with both reductions, and its gradients."""
    channels, k, dtype = features.shape[1], near.kernel_size, features.dtype
    weight = draw.normal(out, channels, k, k, k, dtype=dtype)
    depthwise = draw.normal(channels, 1, k, k, k, dtype=dtype)
    mix, bias = draw.normal(out, channels, dtype=dtype), draw.normal(out, dtype=dtype)
    found: dict[str, Any] = {}
    for how in ("mean", "sum"):

        def cell(x: Tensor, w: Tensor, b: Tensor | None, how: str = how) -> Tensor:
            return pw.cell_conv(x, near, w, b, reduction=how)

        def own(x: Tensor, w: Tensor, how: str = how) -> Tensor:
            return pw.cell_depthwise_conv(x, near, w, reduction=how)

        def separable(x: Tensor, w: Tensor, v: Tensor, b: Tensor, how: str = how) -> Tensor:
            return pw.cell_separable_conv(x, near, w, v, b, reduction=how)

        parts = {"x": features, "depthwise": depthwise, "mix": mix, "bias": bias}
        found[f"cell_conv {how}"] = draw.gradients(
            cell, {"x": features, "weight": weight, "bias": bias}
        )
        found[f"no bias {how}"] = cell(features, weight, None)
        found[f"depthwise {how}"] = draw.gradients(own, {"x": features, "weight": depthwise})
        found[f"separable {how}"] = separable(features, depthwise, mix, bias)
        found[f"separable gradients {how}"] = draw.gradients(separable, parts)
    found["pointwise"] = draw.gradients(
        pw.pointwise_conv, {"x": features, "weight": mix, "bias": bias}
    )
    return found


def _small(name: str, dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud = _cloud(draw, name, dtype)
    return _all(draw, cloud.neighborhood(0.125), draw.normal(len(cloud), 9, dtype=dtype), 9)


def _cell_conv(kernel: tuple[int, int], dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud = _cloud(draw, "several", dtype)
    near = cloud.neighborhood(0.15, *kernel)
    return _all(draw, near, draw.normal(len(cloud), 7, dtype=dtype), 5)


def _channels(channels: tuple[int, int], dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud = _cloud(draw, "one", dtype)
    features = draw.normal(len(cloud), channels[0], dtype=dtype)
    return _all(draw, cloud.neighborhood(0.2), features, channels[1])


def _queries(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud = _cloud(draw, "several", dtype)
    voxels, _ = cloud.voxels(0.2)
    down = cloud.neighborhood(0.2, 3, 1, voxels)
    up = voxels.neighborhood(0.2, 3, 1, cloud)
    return {
        "down": _all(draw, down, draw.normal(len(cloud), 6, dtype=dtype), 8),
        "up": _all(draw, up, draw.normal(len(voxels), 6, dtype=dtype), 8),
    }


def _not_finite(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud = _cloud(draw, "one", dtype)
    features = draw.normal(len(cloud), 9, dtype=dtype)
    features[3, 2], features[50, 0], features[77, 8] = torch.nan, torch.inf, -torch.inf
    return _all(draw, cloud.neighborhood(0.2), features, 9)


def _layers(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    cloud = _cloud(draw, "several", dtype)
    features, found = draw.normal(len(cloud), 6, dtype=dtype), {}
    made = {
        "cell": pw.CellConv(6, 9, 0.15),
        "dilated": pw.CellConv(6, 9, 0.1, dilation=2, bias=False),
        "depthwise": pw.CellDepthwiseConv(6, 0.15, reduction="sum"),
        "separable": pw.CellSeparableConv(6, 9, 0.15),
    }
    for name, layer in made.items():
        draw.fill(layer, dtype)
        with torch.no_grad():
            found[name] = layer(features, cloud)
        found[f"{name} gradients"] = draw.gradients(
            lambda x, layer=layer: layer(x, cloud), {"x": features}
        )
        found[f"{name} weights"] = [parameter.grad for parameter in layer.parameters()]
    found["pointwise"] = draw.training(draw.fill(pw.PointwiseConv(6, 9), dtype), features)
    return found


def _half(draw: Draw) -> dict[str, Any]:
    cloud = _cloud(draw, "one", torch.float32)
    near, found = cloud.neighborhood(0.2), {}
    for dtype in (torch.float16, torch.bfloat16):
        features = draw.normal(len(cloud), 6, dtype=dtype)
        weight = draw.normal(4, 6, 3, 3, 3, dtype=dtype)
        found[str(dtype)] = pw.cell_conv(features, near, weight)
    return found


def _large(draw: Draw) -> dict[str, Any]:
    """Enough points for every thread, every digit of the sort and many slabs."""
    points = draw.uniform(20_000, 3)
    cloud = pw.PointCloud(points, torch.tensor([0, 7_000, 20_000]))
    near = cloud.neighborhood(0.04)
    return {
        "table": (near.row_start, near.pairs),
        "convolutions": _all(draw, near, draw.normal(len(cloud), 8), 8),
    }
