"""Everything of bytes, for who has not yet been told where things stand."""

from pointwise.engine.cpu.gathers import stencil_int8
from pointwise.engine.cpu.loops.depthwise import depthwise_step  # noqa: F401
from pointwise.engine.cpu.loops.mixed import mixed_int8_step as mixed_step  # noqa: F401
from pointwise.engine.cpu.loops.separable import separable_int8_step as separable_step  # noqa: F401
from pointwise.engine.cpu.weights import PackedWeightInt8 as Mix  # noqa: F401
from pointwise.engine.cpu.weights import StencilWeightInt8 as Taps  # noqa: F401
from pointwise.engine.cpu.weights import pack_stencil_int8 as taps  # noqa: F401
from pointwise.engine.cpu.weights import pack_weight_int8 as mix  # noqa: F401


def has_rows(width: int, step: int) -> bool:
    """Whether there is a stencil for kernels ``width`` wide with this step."""
    return (width, step) in stencil_int8.ROWS
