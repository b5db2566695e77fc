"""Draws the pictures of clouds.md, gradients.md and networks.md from what the library computes.

make_pictures.py calls each with the variables of convolutions.md, whose photo the gradients use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import pointwise
from pointwise import PointCloud, cost, networks

INK, PALE, MARK = "#222222", "#c4c9d1", "#b0126f"
# Okabe and Ito: told apart with the common colour vision deficiencies
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
KINDS = {"standard": COLORS[5], "depthwise": COLORS[1], "pointwise": COLORS[0], "linear": PALE}


def sheet() -> torch.Tensor:
    """The wavy sheet of clouds.md, with fewer points: ``[700, 3]``."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(700, 2, dtype=torch.float64, generator=generator)
    height = 0.1 * torch.sin(6 * flat[:, 0]) * torch.cos(6 * flat[:, 1])
    return torch.cat([flat, height[:, None]], 1)


def cells(_: dict[str, Any]) -> Figure:
    """One point of the sheet, its 27 cells, and who is in which; then the means that are mixed."""
    points, size = sheet(), 0.16
    middle = int(((points[:, :2] - 0.5) ** 2).sum(1).argmin())
    query, cell, member = PointCloud(points).neighborhood(size).decode()
    own = query == middle
    cell, member = cell[own], member[own]
    page = Figure((8.1, 3.9), dpi=100, facecolor="white")
    space = page.add_axes((0.0, 0.0, 0.56, 0.94), projection="3d")
    space.set_axis_off()
    space.view_init(24, -62)
    space.set_box_aspect((1, 1, 0.75), zoom=1.35)
    near = points[((points - points[middle]).abs() < 0.34).all(1)]
    space.scatter(*near.T.numpy(), s=5, color=PALE, depthshade=False)
    found = cell.unique().tolist()
    for i, m in enumerate(found):
        color = COLORS[i % len(COLORS)]
        steps = np.array([m % 3, m // 3 % 3, m // 9]) - 1
        _cube(space, points[middle].numpy() + size * steps, size, color)
        space.scatter(*points[member[cell == m]].T.numpy(), s=16, color=color, depthshade=False)
    space.scatter(*points[middle].numpy(), s=110, facecolor="none", edgecolor=MARK, linewidth=2)
    table = page.add_axes((0.6, 0.1, 0.38, 0.76))
    means = [points[member[cell == m], 2].mean().item() for m in found]
    places = range(len(found))
    table.barh(places, means, color=[COLORS[i % len(COLORS)] for i in places])
    counts = [int((cell == m).sum()) for m in found]
    named = zip(found, counts, strict=True)
    table.set_yticks(places, [f"cell {m}: {n} point{'s' * (n > 1)}" for m, n in named], fontsize=8)
    table.invert_yaxis()
    table.axvline(0, color=INK, linewidth=0.8)
    table.tick_params(axis="x", labelsize=8)
    table.locator_params(axis="x", nbins=5)
    table.set_title("the mean of each: what meets its weight", fontsize=9, color=INK)
    for side in ("top", "right"):
        table.spines[side].set_visible(False)
    title = f"one point and its 27 cells: {len(found)} are occupied"
    page.text(0.28, 0.93, title, ha="center", fontsize=9, color=INK)
    return page


def _cube(space: Any, centre: np.ndarray, edge: float, color: str) -> None:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    for a in corners:
        for b in corners:
            if (b - a).sum() == 1 and ((b - a) >= 0).all():
                ends = centre + edge * (np.array([a, b]) - 0.5)
                space.plot(*ends.T, color=color, linewidth=0.9)


def atrous(_: dict[str, Any]) -> Figure:
    """From above: whom one point sees with dilation 1, 2 and 3, and what lies between."""
    points, size = sheet(), 0.09
    middle = int(((points[:, :2] - 0.5) ** 2).sum(1).argmin())
    cloud = PointCloud(points)
    page = Figure((8.1, 3.0), dpi=100, facecolor="white")
    for column, dilation in enumerate((1, 2, 3)):
        query, cell, member = cloud.neighborhood(size, dilation=dilation).decode()
        own = query == middle
        axes = page.add_axes((0.01 + column / 3, 0.02, 0.31, 0.86))
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set(xlim=(0.13, 0.87), ylim=(0.13, 0.87))
        axes.scatter(*points[:, :2].T.numpy(), s=4, color=PALE)
        x, y = points[middle, :2].tolist()
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                low = (x + dilation * size * dx - size / 2, y + dilation * size * dy - size / 2)
                axes.add_patch(_square(low, size))
        place = (cell[own] % 9).tolist()  # seen from above
        axes.scatter(*points[member[own], :2].T.numpy(), s=14,
                     color=[COLORS[m % len(COLORS)] for m in place])  # fmt: skip
        axes.scatter([x], [y], s=90, facecolor="none", edgecolor=MARK, linewidth=2)
        title = f"dilation {dilation}: {int(own.sum())} neighbours"
        axes.set_title(title, fontsize=9, color=INK)
    return page


def _square(low: tuple[float, float], size: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(low, size, size, facecolor="none", edgecolor="#7a8290", linewidth=0.9)


def gradients(names: dict[str, Any]) -> Figure:
    """What comes back through a depthwise convolution of the picture: to pixels and to weights."""
    image = names["picture"].double()
    blue = image[2:3].clone().requires_grad_()
    side = torch.tensor([[-0.25, 0.0, 0.25], [-0.5, 0.0, 0.5], [-0.25, 0.0, 0.25]]).double()
    weight = side[None, None].clone().requires_grad_()
    edges = pointwise.depthwise_conv2d(blue, weight, padding="same")
    loss = 0.5 * edges.square().sum()  # smaller where there are fewer edges
    out, to_image, to_weight = torch.autograd.grad(loss, [edges, blue, weight])
    page = Figure((8.1, 2.45), dpi=100, facecolor="white")
    panels = (
        ("x: the blue channel", blue[0], "gray", None),
        ("y: its upright edges", edges[0], "RdBu_r", 0.8),
        ("∂L/∂x: back to the pixels", to_image[0], "RdBu_r", None),
        ("∂L/∂w: back to the weights", to_weight[0, 0], "RdBu_r", None),
    )
    assert torch.equal(out, edges.detach())  # of this loss, ∂L/∂y is y
    for column, (title, values, colors, most) in enumerate(panels):
        axes = page.add_axes((0.008 + column * 0.25, 0.02, 0.234, 0.84))
        axes.set_axis_off()
        shown = values.detach().numpy()
        most = most or float(np.abs(shown).max())
        low = 0.0 if colors == "gray" else -most
        axes.imshow(shown, cmap=colors, vmin=low, vmax=most, interpolation="nearest")
        axes.set_title(title, fontsize=8.5, color=INK)
        if shown.size == 9:
            for (row, place), value in np.ndenumerate(shown):
                color = "white" if abs(value) > 0.6 * most else INK
                axes.text(place, row, f"{value:.0f}".replace("-0", "0"), ha="center", va="center",
                          fontsize=9, color=color)  # fmt: skip
    return page


def kinds(_: dict[str, Any]) -> Figure:
    """Parameters and multiply-adds of the networks for images, by kind of convolution."""
    counted = {
        make.__name__: cost(make(), (1, 3, size, size))
        for make, size in (
            (networks.MobileNetV1, 224),
            (networks.MobileNetV2, 224),
            (networks.MobileNetV3, 224),
            (networks.EfficientNetB0, 224),
            (networks.Xception, 299),
            (networks.ResNet50, 224),
        )
    }
    page = Figure((8.1, 3.1), dpi=100, facecolor="white")
    for column, (what, unit) in enumerate((("parameters", 1e6), ("multiply_adds", 1e9))):
        axes = page.add_axes((0.15 + 0.43 * column, 0.2, 0.36, 0.68))
        for row, count in enumerate(counted.values()):
            whole, left = getattr(count.totals, what), 0.0
            by_kind = {name: getattr(part, what) for name, part in count.by_kind().items()}
            for name, color in KINDS.items():
                share = by_kind.get(name, 0) / whole
                axes.barh(row, share, left=left, color=color, height=0.72)
                left += share
            axes.text(1.02, row, f"{whole / unit:.1f}", va="center", fontsize=8, color=INK)
        axes.set(xlim=(0, 1), xticks=[0, 0.5, 1])
        axes.set_xticklabels(["0", "50 %", "100 %"], fontsize=8)
        axes.set_yticks(range(len(counted)), list(counted) if column == 0 else [], fontsize=8)
        axes.invert_yaxis()
        title = {"parameters": "parameters (in all, millions)",
                 "multiply_adds": "multiply-adds (in all, 10⁹)"}[what]  # fmt: skip
        axes.set_title(title, fontsize=9, color=INK)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
    for place, (name, color) in enumerate(KINDS.items()):
        x = 0.2 + 0.17 * place
        page.text(x, 0.04, "■", color=color, fontsize=13, va="center")
        page.text(x + 0.025, 0.045, name, color=INK, fontsize=9, va="center")
    return page


MORE = {"clouds": (cells, atrous), "gradients": (gradients,), "networks": (kinds,)}
