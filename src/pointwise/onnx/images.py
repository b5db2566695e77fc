"""What ONNX files do to images: pooling, padding, other sizes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.onnx import functions
from pointwise.onnx import resize as resizing
from pointwise.onnx.call import Call, are_constant, padding

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


def average_pool(call: Call, x: Any) -> Any:
    kernel, *rest = _pool(call)
    if any(each != 1 for each in call.get("dilations", [])):
        raise call.refuse("has gaps in its windows")
    with_padding = bool(call.get("count_include_pad", 0))
    return call(functions.average_pool, x, kernel, *rest, with_padding)


def max_pool(call: Call, x: Any) -> Any:
    kernel, *rest = _pool(call)
    call.without_effect("storage_order")  # of indices, which are not read
    dilation = call.get("dilations", [1] * len(kernel))
    if rest[1] is None and any(each != 1 for each in dilation):
        # ONNX gives ⌈size / stride⌉ results here and ONNX Runtime another number of them.
        raise call.refuse(f"has auto_pad {call.get('auto_pad')!r} with dilations {dilation}")
    return call(functions.max_pool, x, kernel, *rest, dilation)


def _pool(call: Call) -> tuple:
    """Kernel, strides, pads (None: as much as the size asks for), whether the odd one is behind,
    and whether a window may begin inside and end outside."""
    kernel = call.get("kernel_shape")
    if len(kernel) not in (1, 2, 3):
        raise call.refuse(f"is over {len(kernel)} dimensions")
    pads, auto = padding(call, len(kernel))
    around = None if auto.startswith("SAME") else pads
    stride = call.get("strides", [1] * len(kernel))
    return kernel, stride, around, auto == "SAME_UPPER", bool(call.get("ceil_mode", 0))


def pad(call: Call, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    edges = call.whole(pads, "paddings" if call.version == 1 else "pads")
    dims = call.whole(axes, "axes")
    mode = _MODES[call.one_of("mode", *_MODES)]
    if not are_constant(value):
        raise call.refuse("pads by a number that is computed")
    number = call.get("value", 0.0 if value is None else value.item())
    if not edges or not any(edges):
        return x
    return call(functions.pad, x, edges, mode, number, dims)


def resize(call: Call, x: Any, region: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    if call.version < 11:
        region, scales = None, region
    method = _method(call)
    axes = call.get("axes")
    call.without_effect("cubic_coeff_a", "extrapolation_value")
    call.one_of("antialias", 0)
    call.one_of("exclude_outside", 0)
    if scales is not None and not isinstance(scales, Tensor):
        raise call.refuse("has scales that are computed")
    _check_ties(call, method, scales)
    if scales is not None and scales.numel():
        call.without_effect("keep_aspect_ratio_policy")
        return call(resizing.by_factors, x, scales.tolist(), axes, *method)
    call.one_of("keep_aspect_ratio_policy", "stretch")
    wanted = call.sizes(sizes, "sizes")
    if wanted is None:
        raise call.refuse("has neither scales nor sizes")
    return call(resizing.to_sizes, x, wanted, axes, *method)


def _method(call: Call) -> resizing.Method:
    mode = call.one_of("mode", "nearest", "linear")
    if call.version < 11:
        return resizing.Method(mode, "asymmetric", "simple")
    rule = call.one_of("coordinate_transformation_mode", *resizing.COORDINATES)
    return resizing.Method(mode, rule, call.one_of("nearest_mode", *resizing.NEAREST))


def _check_ties(call: Call, method: resizing.Method, scales: Tensor | None) -> None:
    """ONNX Runtime's own roundings, which decide ties here, are not known for these."""
    whole = scales is not None and scales.numel() > 0 and bool((scales == scales.round()).all())
    ceil = method.rounded == "round_prefer_ceil" and not whole
    symmetric = method.coordinate == "half_pixel_symmetric" and not (
        whole and method.rounded.startswith("round")
    )
    if method.mode == "nearest" and (ceil or symmetric):
        raise call.refuse(
            f"has nearest_mode {method.rounded!r} with coordinate_transformation_mode "
            f"{method.coordinate!r}, which is read for scales that are whole numbers only"
        )


def upsample(call: Call, x: Any, scales: Any = None) -> Any:
    """``Resize`` as it was before version 10."""
    if call.version < 9:
        scales = torch.tensor(call.get("scales"))
    if not isinstance(scales, Tensor):
        raise call.refuse("has scales that are computed")
    mode = call.one_of("mode", "nearest", "linear")
    return call(resizing.by_factors, x, scales.tolist(), None, mode, "asymmetric", "simple")


def depth_to_space(call: Call, x: Any) -> Any:
    block = call.get("blocksize")
    if call.one_of("mode", "DCR", "CRD") == "CRD":
        return call(F.pixel_shuffle, x, block)
    return call(depth_first, x, block)


def depth_first(x: Tensor, block: int) -> Tensor:
    """Pixels side by side from channels, whose places in the block come before their numbers."""
    images, channels, height, width = x.shape
    parts = x.reshape(images, block, block, channels // block**2, height, width)
    found = parts.permute(0, 3, 4, 1, 5, 2)
    return found.reshape(images, channels // block**2, height * block, width * block)


def space_to_depth(call: Call, x: Any) -> Any:
    return call(block_to_channels, x, call.get("blocksize"))


def block_to_channels(x: Tensor, block: int) -> Tensor:
    """The inverse of ``depth_first``."""
    images, channels, height, width = x.shape
    parts = x.reshape(images, channels, height // block, block, width // block, block)
    found = parts.permute(0, 3, 5, 1, 2, 4)
    return found.reshape(images, channels * block**2, height // block, width // block)
