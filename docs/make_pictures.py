"""Draws the pictures of the guide: of convolutions.md from what the page's own code computes, of
the other pages by more_pictures.py.

``python docs/make_pictures.py`` writes them beside the page, into ``docs/pictures``; with a folder
as argument, there.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from more_pictures import MORE
from PIL import Image
from torch import Tensor

PAGE = Path(__file__).with_name("convolutions.md")
SIDE, GAP, TITLE = 192, 8, 20  # pixels: of a panel, between panels, above each for its title
DPI = 100
MOST_BYTES = 195_000  # of a picture: the repository keeps every version of it

RED_GREEN = LinearSegmentedColormap.from_list("red-green", ["#1b9e4b", "#f2f2f2", "#d7263d"])
BLUE_YELLOW = LinearSegmentedColormap.from_list("blue-yellow", ["#d9a400", "#f2f2f2", "#1f5fbf"])
RED_BLUE = LinearSegmentedColormap.from_list("red-blue", ["#1f5fbf", "#f2f2f2", "#d7263d"])


def blocks(page: Path = PAGE) -> list[tuple[str, str | None]]:
    """Each Python block of a page, and what the page says that it prints."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.M | re.S)
    return [(source, printed or None) for source, printed in found]


def run(page: Path = PAGE) -> dict[str, Any]:
    """Runs the blocks of a page one after the other; what they have defined."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for source, _ in blocks(page):
            exec(source, names)
    return names


# --- panels ---------------------------------------------------------------------------------------


class Panels:
    """A white figure of rows and columns of square panels with a title above each."""

    def __init__(self, rows: int, columns: int) -> None:
        self.width = columns * SIDE + (columns + 1) * GAP
        self.height = rows * (SIDE + TITLE) + (rows + 1) * GAP
        self.figure = Figure((self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")

    def at(self, row: int, column: int, title: str, side: float = SIDE) -> Any:
        """The axes of a panel, in whole pixels, so that nothing is interpolated."""
        x = GAP + column * (SIDE + GAP) + (SIDE - side) // 2
        y = GAP + TITLE + row * (SIDE + TITLE + GAP) + (SIDE - side) // 2
        axes = self.figure.add_axes(
            (x / self.width, 1 - (y + side) / self.height, side / self.width, side / self.height)
        )
        axes.set_axis_off()
        x = GAP + column * (SIDE + GAP) + SIDE / 2
        y = TITLE + row * (SIDE + TITLE + GAP)
        self.figure.text(
            x / self.width, 1 - y / self.height, title, ha="center", fontsize=8.5, color="#222222"
        )
        return axes

    def color(self, row: int, column: int, title: str, image: Tensor, zoom: int = 1) -> None:
        """``image [3, H, W]``, 0 to 1."""
        axes = self.at(row, column, title, zoom * image.shape[1])
        axes.imshow(image.clamp(0, 1).permute(1, 2, 0), interpolation="nearest")

    def gray(self, row: int, column: int, title: str, image: Tensor) -> None:
        """``image [H, W]``, 0 (black) to 1 (white)."""
        axes = self.at(row, column, title, image.shape[0])
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")

    def signed(self, row: int, column: int, title: str, image: Tensor,
               colors: str | Colormap = "gray", most: float = 0.8) -> None:  # fmt: skip
        """``image [H, W]``, -most to most, zero in the middle of the colours."""
        axes = self.at(row, column, title, image.shape[0])
        axes.imshow(image, cmap=colors, vmin=-most, vmax=most, interpolation="nearest")

    def numbers(self, row: int, column: int, title: str, table: Tensor, cell: int = 22) -> None:
        """``table [H, W]`` of numbers 4 to 9, each in a square of its own."""
        axes = self.at(row, column, title, cell * len(table))
        axes.imshow(table, cmap="Blues_r", vmin=0, vmax=12, interpolation="nearest")
        for y, line in enumerate(table.tolist()):
            for x, value in enumerate(line):
                axes.text(x, y, str(value), ha="center", va="center", fontsize=8,
                          color="white" if value < 7 else "#103050")  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG of as many colours as ``MOST_BYTES`` have room for."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    image = Image.open(drawn).convert("RGB")
    for colors in (None, 256, 128, 64):
        made = image if colors is None else image.quantize(colors)
        png = io.BytesIO()
        made.save(png, format="png", optimize=True)
        if png.tell() <= MOST_BYTES:
            break
    path.write_bytes(png.getvalue())


# --- pictures -------------------------------------------------------------------------------------


def picture(names: dict[str, Any]) -> Panels:
    panels = Panels(1, 4)
    panels.color(0, 0, "the picture", names["picture"])
    for column, title in enumerate(("red", "green", "blue")):
        panels.gray(0, column + 1, title, names["picture"][column])
    return panels


def standard(names: dict[str, Any]) -> Panels:
    panels = Panels(1, 4)
    panels.color(0, 0, "input: 3 channels", names["picture"])
    _outputs(panels, 0, 1, names["standard"])
    return panels


def _outputs(panels: Panels, row: int, column: int, result: Tensor) -> None:
    """The three outputs of the standard and of the separable convolution."""
    panels.gray(row, column, "output 0: brightness, blurred", result[0])
    panels.signed(row, column + 1, "output 1: its edges", result[1])
    panels.signed(row, column + 2, "output 2: red-blue edges", result[2], RED_BLUE)


def depthwise(names: dict[str, Any]) -> Panels:
    panels = Panels(2, 3)
    colors = ("red", "green", "blue")
    for column, color in enumerate(colors):
        panels.gray(0, column, f"input {column}: {color}", names["picture"][column])
    result = names["depthwise"]
    panels.gray(1, 0, "output 0: red, blurred", result[0])
    panels.signed(1, 1, "output 1: green, upright edges", result[1])
    panels.signed(1, 2, "output 2: blue, level edges", result[2])
    return panels


def multiplier(names: dict[str, Any]) -> Panels:
    panels, six = Panels(2, 3), names["six"]
    for column, color in enumerate(("red", "green", "blue")):
        first = 2 * column
        panels.gray(0, column, f"output {first}: {color}, blurred", six[first])
        panels.signed(1, column, f"output {first + 1}: {color}, edges", six[first + 1])
    return panels


def pointwise(names: dict[str, Any]) -> Panels:
    panels = Panels(1, 4)
    result = names["pointwise"]
    panels.color(0, 0, "input: 3 channels", names["picture"])
    panels.gray(0, 1, "output 0: brightness", result[0])
    panels.signed(0, 2, "output 1: red against green", result[1], RED_GREEN, 0.6)
    panels.signed(0, 3, "output 2: blue against yellow", result[2], BLUE_YELLOW, 0.6)
    return panels


def groups(names: dict[str, Any]) -> Panels:
    panels = Panels(1, 3)
    _as_colors(panels, 0, "channels", names["six"])
    panels.color(0, 2, "outputs: blurred + 1.5 · edges", names["grouped"])
    return panels


def _as_colors(panels: Panels, column: int, what: str, six: Tensor) -> None:
    """The six channels as two colour images; of the edges, grey is zero."""
    panels.color(0, column, f"{what} 0, 2, 4: blurred", six[0::2])
    panels.color(0, column + 1, f"{what} 1, 3, 5: edges", six[1::2] / 1.6 + 0.5)


def separable(names: dict[str, Any]) -> Panels:
    panels = Panels(2, 3)
    panels.color(0, 0, "input: 3 channels", names["picture"])
    _as_colors(panels, 1, "middle", names["six"])
    _outputs(panels, 1, 0, names["separable"])
    return panels


def stride(names: dict[str, Any]) -> Panels:
    panels = Panels(1, 3)
    top, left, side = 12, 34, 48  # cap and glasses, in pixels of the results
    detail = names["picture"][:, 2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
    panels.color(0, 0, "a detail of the picture", detail, 2)
    for column, (title, name) in enumerate(
        (("pointwise, stride 2", "left_out"), ("depthwise blur, stride 2", "halved"))
    ):
        result = names[name][:, top : top + side, left : left + side]
        panels.color(0, column + 1, title, result, 4)
    return panels


def padding(names: dict[str, Any]) -> Panels:
    panels = Panels(2, 4)
    for column, (way, table) in enumerate(names["counts"].items()):
        panels.numbers(0, column, way, table)
        panels.color(1, column, " × ".join(map(str, names["means"][way].shape[1:])),
                     names["means"][way])  # fmt: skip
    return panels


def dilation(names: dict[str, Any]) -> Panels:
    panels = Panels(1, 4)
    panels.color(0, 0, "the picture", names["picture"])
    for column, (d, result) in enumerate(names["dilated"].items()):
        side = 2 * d + 1
        panels.signed(0, column + 1, f"dilation {d}: sees {side} × {side}", result[0])
    return panels


def epilogue(names: dict[str, Any]) -> Panels:
    panels = Panels(1, 4)
    panels.signed(0, 0, "convolution", names["dilated"][1][0])
    panels.signed(0, 1, "+ bias", names["lifted"][0])
    panels.signed(0, 2, "relu(convolution)", names["rising"][0])
    panels.color(0, 3, "convolution + residual", names["sharper"])
    return panels


PICTURES = (picture, standard, depthwise, multiplier, pointwise, groups, separable, stride, padding,
            dilation, epilogue)  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else PAGE.with_name("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    names = run()
    for make in PICTURES:
        save(make(names).figure, folder / f"{make.__name__}.png")
    for draw in (one for page in MORE.values() for one in page):
        save(draw(names), folder / f"{draw.__name__}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
