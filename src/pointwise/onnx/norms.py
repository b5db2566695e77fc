"""Norms of ONNX files besides those of images: over groups, over what lies behind an axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointwise.onnx.call import Call, are_constant


def group_norm(call: Call, x: Any, weight: Any, bias: Any) -> Any:
    call.one_of("stash_type", 1)
    if not are_constant(weight, bias):
        raise call.refuse("has a factor that is computed")
    groups, eps = call.get("num_groups"), call.get("epsilon", 1e-5)
    if call.version < 21:  # a factor of each group
        return call(of_groups, x, groups, weight, bias, eps)
    return call(torch.group_norm, x, groups, weight, bias, eps)


def of_groups(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm with a factor and a shift of each group, and not of each channel."""
    each = x.shape[1] // groups
    weight, bias = weight.repeat_interleave(each), bias.repeat_interleave(each)
    return torch.group_norm(x, groups, weight, bias, eps)


def rms_norm(call: Call, x: Any, weight: Any) -> Any:
    call.one_of("stash_type", 1)
    return call(of_squares, x, call.get("axis", -1), weight, call.get("epsilon", 1e-5))


def of_squares(x: Tensor, axis: int, weight: Tensor, eps: float) -> Tensor:
    """Over all dimensions from ``axis`` on, by the mean of the squares."""
    dims = list(range(axis % x.dim(), x.dim()))
    return x * torch.rsqrt((x * x).mean(dims, keepdim=True) + eps) * weight


def mean_variance(call: Call, x: Any) -> Any:
    return call(standardised, x, call.get("axes", [0, 2, 3]))


def standardised(x: Tensor, dims: list[int]) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred / ((centred * centred).mean(dims, keepdim=True).sqrt() + 1e-9)


def lp_norm(call: Call, x: Any) -> Any:
    return call(of_length_one, x, call.one_of("p", 2, 1), call.get("axis", -1))


def of_length_one(x: Tensor, p: int, axis: int) -> Tensor:
    length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(length == 0, torch.zeros_like(x), x / length)
