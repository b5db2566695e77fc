"""Convolutions in training with batch norm: statistics from the epilogue, the norm in the prologue.

Between two convolutions, batch norm and activation are ``clamp((z - mean)·scale + shift)`` of the
first one's result z. That is applied as the second one reads z, and never written; mean and
variance of a result are summed up while it is still in the cache. Backwards alike: what comes back
through mean and variance is added as the gradient is read, and the activation's mask and the
gradients of mean, scale and shift come out of the epilogue of the input's gradient. So every
activation and every gradient is written once, and read by the next convolution and by the weight's
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pointwise.convolution.problem import is_depthwise
from pointwise.convolution.window import Window
from pointwise.engine.cpu.gathers.prologue import Correction, correction_of, normalisation
from pointwise.engine.cpu.layout import Arguments
from pointwise.engine.cpu.loops import grouped, pointwise_backward
from pointwise.engine.cpu.loops.depthwise import normed_depthwise
from pointwise.engine.cpu.loops.depthwise_backward import backward_kernel, depthwise_backward
from pointwise.engine.cpu.loops.depthwise_gradient import stencil_weight_gradient
from pointwise.engine.cpu.loops.input_gradient import (
    depthwise_input_gradient,
    mixed_input_gradient,
    phase_of,
    phases,
)
from pointwise.engine.cpu.loops.mixed import mixed
from pointwise.engine.cpu.loops.weight_gradient import mixed_weight_gradient
from pointwise.engine.cpu.moments import (
    Moments,
    NormGradient,
    Reduction,
    pass_over,
)
from pointwise.engine.cpu.norm import NORM, from_zero, same
from pointwise.engine.cpu.partial_sums import total_of
from pointwise.engine.cpu.weights import pack_stencil, pack_weight


@dataclass(frozen=True)
class NormalisedImage:
    """``clamp((z - mean)·scale + shift, low, high)`` of an image z ``[N, C, H, W]``.

    Without ``mean``, ``scale`` and ``shift`` ``[C]`` it is z as it is.
    """

    z: Tensor
    mean: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    low: float
    high: float
    term: Tensor | None = None
    """Of ``z·scale + term``, where that is known."""

    @property
    def rows(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Mean, scale and shift; None without a norm."""
        if self.mean is None or self.scale is None or self.shift is None:
            return None
        return self.mean, self.scale, self.shift

    def prologue(self) -> Arguments | None:
        """How a gather reads z."""
        if self.rows is None:
            return None
        return normalisation(self.rows[1], self._from_zero(), self.low, self.high)

    def _from_zero(self) -> Tensor:
        assert self.rows is not None
        return from_zero(*self.rows) if self.term is None else self.term

    def gradient(self) -> NormGradient | None:
        """What is made of a gradient that comes back here."""
        return None if self.rows is None else NormGradient(self.z, *self.rows, self.low, self.high)

    def norm(self) -> Arguments:
        """The norm for kernels that compute ``z·scale + shift``: one that changes nothing for z."""
        if self.rows is None:
            zeros, ones = (same(value, self.z.shape[1], self.z.dtype) for value in (0, 1))
            return NORM(mean=zeros, scale=ones, shift=zeros, low=-np.inf, high=np.inf)
        mean, scale, _ = self.rows
        return NORM(mean=mean, scale=scale, shift=self._from_zero(), low=self.low, high=self.high)


# --- forward and backward -------------------------------------------------------------------------


def forward(
    image: NormalisedImage, weight: Tensor, window: Window, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(the convolution of a normalised image, its mean, its biased variance)."""
    out, moments = convolved(image, weight, window, groups)
    return out, *moments.result()


def convolved(
    image: NormalisedImage, weight: Tensor, window: Window, groups: int
) -> tuple[Tensor, Moments]:
    """(the convolution of a normalised image, the sums that its mean and variance come from)."""
    moments = Moments()
    if is_depthwise(weight.shape, groups):
        stencil = pack_stencil(weight, None)
        out = normed_depthwise(image.z, stencil, window, image.prologue(), moments)
    elif grouped.is_better(window, len(weight) // groups, groups, weight.dtype):
        kernels = grouped.pack(weight, None, groups)
        out = grouped.grouped(image.z, kernels, window, len(weight), image.prologue(), moments)
    else:
        packed = pack_weight(weight, None, groups)
        out = mixed(image.z, packed, window, prologue=image.prologue(), moments=moments)
    return out, moments


def backward(
    image: NormalisedImage,
    weight: Tensor,
    window: Window,
    groups: int,
    out: Tensor,
    out_mean: Tensor,
    grad: Tensor,
    d_mean: Tensor,
    d_variance: Tensor,
    wanted: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
    """Gradients of z, of scale and shift, and of the weight; z's only where it is ``wanted``.

    The mean's gradient is minus scale times the shift's. ``out`` and its mean are what ``forward``
    gave, ``grad``, ``d_mean`` and ``d_variance`` the gradients of its three results.
    """
    correction = correction_of(grad, d_mean, d_variance, out, out_mean)
    d_z, sums, d_weight = gradients(image, weight, window, groups, correction, wanted)
    if sums is None:
        return d_z, None, None, d_weight
    channels, total = image.z.shape[1], total_of(sums)
    return d_z, total[:channels], total[channels : 2 * channels], d_weight


_SMALL = 4 * 1024 * 1024  # bytes


def _is_small(grad: Tensor) -> bool:
    """Whether a gradient had better be corrected once and for all.

    Every block of columns of both products would do it again, and what is so small stays in the
    cache meanwhile.
    """
    return grad.numel() * grad.element_size() <= _SMALL


def gradients(
    image: NormalisedImage,
    weight: Tensor,
    window: Window,
    groups: int,
    correction: Correction,
    wanted: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """(the gradient of z, the sums that those of its norm come from, that of the weight)."""
    depthwise = is_depthwise(weight.shape, groups)
    if depthwise and wanted:
        compiled = backward_kernel(window, image.z.dtype)
        if compiled is not None:
            d_z, sums, d_weight = depthwise_backward(
                compiled, image.z, image.norm(), weight, window, correction
            )
            return d_z, None if image.rows is None else sums, d_weight
    prologue, kernel = image.prologue(), weight.shape[2:]
    reduction = image.gradient()
    if wanted and pointwise_backward.is_better(window, weight, groups):
        d_z, d_weight = pointwise_backward.pointwise_backward(
            image.z, weight, window, correction, prologue, reduction
        )
        return d_z, None if reduction is None else reduction.sums, d_weight
    grad, how = correction.grad, correction.prologue
    if wanted and window.taps == 1 and not depthwise and _is_small(grad):
        grad, how = correction.corrected(), None
    given = grad, image.z, window, kernel
    if depthwise:
        d_weight = stencil_weight_gradient(*given, prologue, how)
    else:
        d_weight = mixed_weight_gradient(*given, groups, prologue, how)
    if not wanted:
        return None, None, d_weight
    if depthwise:
        d_z = _depthwise_input_gradient(weight, window, correction, reduction)
    else:
        d_z = mixed_input_gradient(grad, weight, window, groups, how, reduction)
    return d_z, None if reduction is None else reduction.sums, d_weight


def _depthwise_input_gradient(
    weight: Tensor, window: Window, correction: Correction, reduction: Reduction | None
) -> Tensor:
    found = phases(window)
    if len(found) == 1:
        taps, own = phase_of(weight, window, *found[0])
        stencil = pack_stencil(taps, None, backwards=True)
        return normed_depthwise(correction.grad, stencil, own, correction.prologue, reduction)
    # A strided result is small beside its input: the corrected gradient may as well be written.
    d_z = depthwise_input_gradient(correction.corrected(), weight, window)
    if reduction is not None:
        pass_over(d_z, reduction)
    return d_z
