"""What ONNX files do to images: pooling, padding, other sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def reduce(function: Callable) -> Callable:
    def read(call: Call, x: Any, axes: Any = None) -> Any:
        dims, keep = call.whole(axes, "axes"), bool(call.get("keepdims", 1))
        if call.get("noop_with_empty_axes") and not dims:
            return x
        return call(function, x, dims or None, keep)

    return read


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
