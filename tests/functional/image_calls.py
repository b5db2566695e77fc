"""A case of the table, computed by each function that can do it."""

from __future__ import annotations

from image_cases import ImageCase

from pointwise.functional import conv2d, depthwise_conv2d, pointwise_conv2d


def by_every_function(case: ImageCase, **more):
    """The convolution by each function that can do it: (name, result)."""
    x, weight, bias = case.tensors()
    yield "conv2d", conv2d(x, weight, bias, **case.geometry, groups=case.groups, **more)
    if case.is_depthwise:
        yield "depthwise", depthwise_conv2d(x, weight, bias, **case.geometry, **more)
    if case.is_pointwise:
        options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
        yield "pointwise", pointwise_conv2d(x, weight, bias, **options, **more)
        flat = weight.reshape(weight.shape[:2])
        yield "pointwise, flat", pointwise_conv2d(x, flat, bias, **options, **more)
