"""The gradients of convolutions on images by their names of before."""

from pointwise.engine.cpu.loops.depthwise_gradient import (  # noqa: F401
    stencil_weight_gradient as depthwise_weight,
)
from pointwise.engine.cpu.loops.input_gradient import (  # noqa: F401
    depthwise_input_gradient as depthwise_input,
)
from pointwise.engine.cpu.loops.input_gradient import (  # noqa: F401
    mixed_input_gradient as mixed_input,
)
from pointwise.engine.cpu.loops.weight_gradient import (  # noqa: F401
    mixed_weight_gradient as mixed_weight,
)
