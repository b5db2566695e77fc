"""A batch norm with the bounds of its activation, as kernels read it."""

from __future__ import annotations

from pointwise.engine.cpu.layout import Layout

NORM = Layout("Norm", "*mean *scale *shift low:real high:real")
"""``clamp((x - mean)·scale + shift, low, high)``, for rows ``[C]``."""
