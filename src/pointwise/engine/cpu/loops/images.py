"""Everything, for who has not yet been told where things stand."""

from pointwise.engine.cpu.loops.depthwise import depthwise, depthwise_step  # noqa: F401
from pointwise.engine.cpu.loops.mixed import mixed, mixed_step  # noqa: F401
from pointwise.engine.cpu.loops.separable import separable, separable_step  # noqa: F401
from pointwise.engine.cpu.loops.shared import (  # noqa: F401
    EPILOGUES,
    Step,
    empty,
    over_rows,
    row_kernel,
)
from pointwise.engine.cpu.table import bits  # noqa: F401
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401
