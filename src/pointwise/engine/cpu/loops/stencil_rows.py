"""Rows of a stencil with their epilogue, for the loops that have one."""

from __future__ import annotations

from pointwise.engine.cpu.activation import NONE, activate
from pointwise.engine.cpu.launch import device_of, slot
from pointwise.engine.cpu.loops.shared import TAPS
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401


def stencil_rows_of(fill, *shape):
    @device_of(*shape)
    def stencil_rows(arguments, image, first, rows, out, out_pixel, out_line, like):
        """Some rows of the stencil on one image, with their epilogue."""
        pixel, channels = slot(arguments, 1), slot(arguments, 2)
        height, width, points = slot(arguments, 3), slot(arguments, 4), slot(arguments, 6)
        fill( out, out_pixel, out_line, first, rows,
                     slot(arguments, 0) + image * height * width * pixel, pixel, channels, height,
                     width, points, slot(arguments, 7), slot(arguments, 8), slot(arguments, 9),
                     slot(arguments, 10), slot(arguments, 11), slot(arguments, 12),
                     slot(arguments, 13), slot(arguments, 14), slot(arguments, TAPS),
                     slot(arguments, TAPS + 1), slot(arguments, TAPS + 2),
                     real(arguments, TAPS + 3, like), real(arguments, TAPS + 4, like),
                     like)  # fmt: skip
        kind = slot(arguments, TAPS + 5)
        if kind != NONE:  # then points follow one another
            activate(out, out_pixel, rows * points, channels, kind, like)

    return stencil_rows
