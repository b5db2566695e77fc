"""A window as kernels read it."""

from __future__ import annotations

from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.layout import Arguments, Layout

WINDOW = Layout(
    "Window",
    "pixel channels height width lines points stride_y stride_x taps_y taps_x "
    "padding_y padding_x dilation_y dilation_x",
)
"""``channels`` of pixels that lie ``pixel`` bytes apart; the result is ``lines × points``."""


def window_arguments(window: Window, pixel: int, channels: int) -> Arguments:
    """A window over pixels that lie ``pixel`` bytes apart; of ``channels`` of them."""
    y, x = window.y, window.x
    return WINDOW(
        pixel=pixel, channels=channels, height=y.size, width=x.size, lines=y.points,
        points=x.points, stride_y=y.stride, stride_x=x.stride, taps_y=y.taps, taps_x=x.taps,
        padding_y=y.padding, padding_x=x.padding, dilation_y=y.dilation, dilation_x=x.dilation,
    )  # fmt: skip


def pixel_bytes(image: Tensor) -> int:
    """How many bytes the pixels of an image lie apart; more than its channels take, of a part.

    Rows of a matrix ``[N, C]`` are pixels too.
    """
    for dim in (3, 2, 0) if image.dim() == 4 else (0,):  # pixel after pixel, where there are some
        if image.shape[dim] > 1:
            return image.stride(dim) * image.element_size()
    return image.shape[1] * image.element_size()


_Window = WINDOW.tuple


@device
def over_other_pixels(window, channels, height, width, padding_y, padding_x):
    """The window over an image of other sizes, whose pixels lie as far apart."""
    return _Window(
        window.pixel, channels, height, width, window.lines, window.points, window.stride_y,
        window.stride_x, window.taps_y, window.taps_x, padding_y, padding_x, window.dilation_y,
        window.dilation_x,
    )  # fmt: skip


@device
def over_some_lines(window, pixel, channels, height, padding_y):
    """The window over some lines of its image, and some channels, in pixels of other sizes."""
    return _Window(
        pixel, channels, height, window.width, window.lines, window.points, window.stride_y,
        window.stride_x, window.taps_y, window.taps_x, padding_y, window.padding_x,
        window.dilation_y, window.dilation_x,
    )  # fmt: skip
