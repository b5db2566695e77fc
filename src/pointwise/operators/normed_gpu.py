"""The operators of training with batch norm on GPUs; None where PyTorch's own are to run.

Kernels are imported where they run: they need Triton. Rows (means, scales …) are float32 where
images have 16 bits.
"""

from __future__ import annotations

from pointwise.convolution.problem import describe
from pointwise.engine import choose_gpu
from pointwise.operators.images_gpu import as_read, residual_as_read


def norm_conv2d(z, mean, scale, shift, low, high, weight, stride, padding, dilation, groups):
    convolution = describe(z.shape, weight.shape, stride, padding, dilation, groups, z.dtype)
    if not _runs(convolution):
        return None
    from pointwise.engine.gpu.gathers.prologue import norm
    from pointwise.engine.gpu.loops.normed_images import forward

    before = norm(mean, scale, shift, low, high)
    return forward(as_read(z), before, weight.contiguous(), convolution.window, _edges(padding),
                   groups)  # fmt: skip


def norm_conv2d_backward(grad, d_mean, d_variance, out, out_mean, wanted, z, mean, scale, shift,
                         low, high, weight, stride, padding, dilation, groups):  # fmt: skip
    convolution = describe(z.shape, weight.shape, stride, padding, dilation, groups, z.dtype)
    if not _runs(convolution):
        return None
    from pointwise.engine.gpu.gathers.prologue import norm
    from pointwise.engine.gpu.loops.normed_images import backward

    before = norm(mean, scale, shift, low, high)
    rows = (row.contiguous() for row in (out_mean, d_mean, d_variance))
    out_mean, d_mean, d_variance = rows
    d_z, d_scale, d_shift, d_weight = backward(
        as_read(z), before, weight.contiguous(), convolution.window, _edges(padding), groups,
        as_read(out), out_mean, as_read(grad), d_mean, d_variance, wanted)  # fmt: skip
    d_z, d_scale, d_shift = (
        like.new_empty(0) if d is None else d
        for d, like in ((d_z, z), (d_scale, d_mean), (d_shift, d_mean))
    )
    return d_z, d_scale.clone(), d_shift.clone(), d_weight.contiguous()


def norm_act(z, mean, scale, shift, residual, activation):
    from pointwise.engine.gpu.gathers.prologue import Prologue
    from pointwise.engine.gpu.loops.norm_act import forward

    before = Prologue("norm", *(row.contiguous() for row in (mean, scale, shift)))
    return forward(as_read(z), before, residual_as_read(residual), activation)


def norm_act_backward(grad, z, mean, scale, shift, residual, activation):
    from pointwise.engine.gpu.gathers.prologue import Prologue
    from pointwise.engine.gpu.loops.norm_act import backward

    before = Prologue("norm", *(row.contiguous() for row in (mean, scale, shift)))
    *found, d_residual = backward(as_read(grad), as_read(z), before, residual_as_read(residual),
                                  activation)  # fmt: skip
    return *found, z.new_empty(0) if d_residual is None else d_residual


def _runs(convolution) -> bool:
    """Of a depthwise convolution with a multiplier there is no kernel in training; what is not
    depthwise is cuDNN's between passes of ours."""
    if convolution.is_depthwise:
        return convolution.depth_multiplier == 1 and not choose_gpu.why_not(convolution)
    return True


def _edges(padding) -> tuple[int, int, int, int]:
    top, bottom, left, right = padding
    return left, right, top, bottom
