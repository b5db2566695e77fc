"""``pointwise.accelerate(model, example)``: the model traced, and the trace tried.

What a trace cannot guard is tried (``holds.py``), and where the trace gives something else than the
model, torch.compile takes over.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils import _pytree as pytree

from pointwise.acceleration import holds, on_gpu
from pointwise.acceleration.arguments import Arguments, Given
from pointwise.acceleration.bf16 import is_in_bf16, widened
from pointwise.acceleration.compiled import Compiled
from pointwise.acceleration.module import Accelerated
from pointwise.acceleration.precision import of_bf16, to_bf16, to_int8
from pointwise.acceleration.ranges import PERCENTILE
from pointwise.acceleration.trace import traced
from pointwise.engine.cpu import dots, isa, pairs
from pointwise.messages import first_line

_TOLERANCE = 0.01


def accelerate(
    model: nn.Module,
    example: Any,
    precision: str | None = None,
    calibration: Iterable[Any] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    percentile: float | None = None,
) -> Accelerated | Compiled:
    """A module that computes what ``model`` does, in inference and in less time.

    Of a model on a GPU, norms are folded, and depthwise convolutions run as kernels for GPUs where
    those are faster; the rest stays PyTorch's own, and ``reports()`` says so.

    ``example`` is an input, or a tuple of all of them: what the model is traced with. The values of
    its tensors do not matter, their types do, and their shapes where the model depends on them:
    batches and images of other sizes are fine wherever the model itself does not fix them. Numbers,
    strings, booleans and None among the inputs are part of the trace. ``kwargs`` are inputs by
    name; whoever calls the result may give any by name or by place, and leave out those at their
    defaults. A call with inputs for which
    the trace is not valid raises ValueError. The result holds copies of the weights: later changes
    of the model do not reach it. It can be called from several threads, pickled and saved, and
    loaded where the model's class is not known.

    Models that torch.export cannot trace (such as those that decide by values) are compiled with
    ``torch.compile(model, backend="pointwise")`` instead, which runs what it can; a warning says
    so.

    ``precision="int8"`` computes convolutions with 8-bit integers where that is faster: several
    times as fast as float32 on machines with AVX512-VNNI, with slightly different results.
    ``calibration`` is a DataLoader or a list of batches of data such as the model will see (a few
    hundred samples are enough; labels, if there are any, behind the inputs). It shows how large the
    numbers between layers become, and is run in both precisions: ``cost`` of the result says how
    much they differ. On machines with AVX2 alone it is less: see the guide; on those without it,
    ValueError says that float32 is faster.

    ``precision="mixed"`` leaves those convolutions in float32 that cost most, so that results keep
    within a relative error of ``tolerance`` (0.01 if it is not given; as in ``cost``) on the
    calibration data. ``percentile`` says how many of the numbers between layers bytes must reach on
    each side (99.999 if it is not given); fewer make their steps finer.

    ``precision="bf16"`` multiplies bfloat16 numbers in convolutions and linear layers, and adds
    them up in float32, on machines with AVX512-BF16. ``cost`` says how much results differ, on the
    ``calibration`` data or, without them, on the example.

    Raises ValueError for a model in training mode, or one that ``precision`` does not suit,
    TypeError for what is not a module, and for an example that it does not take.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> faster = accelerate(model, torch.rand(1, 3, 32, 32))
    >>> faster(torch.rand(4, 3, 48, 40)).shape
    torch.Size([4, 8, 46, 38])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model must be an nn.Module, got {type(model).__name__}")
    if any(part.training for part in model.modules()):
        raise ValueError(
            "accelerate: the model, or a part of it, is in training mode; call model.eval() first"
        )
    _check_device(model, precision)
    _check_precision(precision, calibration)
    _check_limits(precision, tolerance, percentile)
    _warn_of_hooks(model)
    args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    inputs = (args, dict(kwargs or {}))
    try:
        inputs = Arguments.of(model.forward, inputs).arranged(*inputs)
    except TypeError as error:
        raise TypeError(f"accelerate: the model does not take this example: {error}") from error
    with torch.autocast("cpu", enabled=False):  # whether it is on is asked at every call
        on_cpu = on_gpu.device_of(model.parameters()) is None
        if precision is None and on_cpu and not pairs.WHY_NOT and is_in_bf16(model):
            return _of_bf16(model, inputs)
        found = _accelerated(model, inputs)
        if precision is None:
            return found
        if isinstance(found, Compiled):
            raise ValueError(
                f"accelerate: precision={precision!r} needs a model that torch.export can trace; "
                f"it said: {found.why}"
            )
        if precision == "bf16":
            return to_bf16(found, inputs, calibration)
        assert calibration is not None
        if precision == "mixed" and tolerance is None:
            tolerance = _TOLERANCE
        return to_int8(
            found, calibration, sum(map(len, inputs)), tolerance, percentile or PERCENTILE
        )


def _check_device(model: nn.Module, precision: str | None) -> None:
    device = on_gpu.device_of(model.parameters())
    if precision is not None and device is not None:
        raise ValueError(
            f"accelerate: precision={precision!r} is for models on the CPU, and this one is on "
            f"{device}; leave precision out, and use model.bfloat16() or torch.autocast there"
        )


def _check_precision(precision: str | None, calibration: Iterable[Any] | None) -> None:
    if precision not in (None, "int8", "mixed", "bf16"):
        raise ValueError(
            "accelerate: precision must be 'int8', 'mixed' or 'bf16', or None for the model's own, "
            f"got {precision!r}"
        )
    if precision in ("int8", "mixed") and calibration is None:
        raise ValueError(
            f"accelerate: precision={precision!r} needs calibration: a DataLoader or a list of "
            "batches of data such as the model will see"
        )
    if precision is None and calibration is not None:
        raise ValueError(
            "accelerate: calibration is for a precision, 'int8', 'mixed' or 'bf16': give both, or "
            "neither"
        )
    why = {None: None, "bf16": pairs.WHY_NOT}.get(precision, dots.WHY_NOT)
    if why:
        raise ValueError(
            f"accelerate: precision={precision!r}: {why}, which {_here()}. Leave precision out: "
            "float32 is faster here"
        )


def _check_limits(precision: str | None, tolerance: float | None, percentile: float | None) -> None:
    if tolerance is not None and (precision != "mixed" or not tolerance > 0):
        raise ValueError(
            "accelerate: tolerance is a relative error above 0, for precision='mixed', got "
            f"{tolerance!r} with precision={precision!r}"
        )
    if percentile is not None and (
        precision not in ("int8", "mixed") or not 90 <= percentile <= 100
    ):
        raise ValueError(
            "accelerate: percentile is one from 90 to 100, for precision='int8' or 'mixed', got "
            f"{percentile!r} with precision={precision!r}"
        )


def _here() -> str:
    if isa.is_less_than_best():
        return f"{isa.VARIABLE}={isa.ISA.name} leaves out"
    return "this processor does not have"


def _warn_of_hooks(model: nn.Module) -> None:
    """Says that hooks run no more, but for PyTorch's own, which make weights."""
    named = [name or "the model" for name, part in model.named_modules() if _has_hooks(part)]
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        named.append("all modules")
    if named:
        some = ", ".join(named[:3]) + (", …" if len(named) > 3 else "")
        warnings.warn(
            f"accelerate: hooks on {some} run while the model is traced, and not again: what they "
            "do to results is kept, what they collect is not. torch.compile(model, "
            "backend='pointwise') runs them",
            stacklevel=3,
        )


def _has_hooks(module: nn.Module) -> bool:
    found = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(not _module_of(hook).startswith("torch.nn.utils") for hook in found)


def _module_of(hook: Any) -> str:
    return str(getattr(hook, "__module__", ""))  # of objects with __call__, that of their class


def _accelerated(model: nn.Module, example: Given) -> Accelerated | Compiled:
    reasons = []
    example = _apart(example)
    for given in (_widened(example), example):
        if given is None:
            continue
        try:
            trace = traced(model, given)
            trace.found.inputs.check(pytree.tree_leaves(example))
            why = holds.why_not(model, trace.found, example) or holds.tried(model, trace, given)
        except Exception as error:  # torch.export has many kinds
            why = _said_by(error)
        if not why and trace.is_cut:
            warnings.warn(
                "accelerate: this model cuts its inputs into windows, and a trace of that for any "
                "size takes minutes: this one is for the sizes of the example, and as many inputs "
                "at once as you like. Accelerate it again for other sizes",
                stacklevel=3,
            )
        if not why:
            return trace.found
        reasons.append(why)
    warnings.warn(
        "accelerate: torch.export cannot trace this model, which is compiled in pieces with "
        f"torch.compile instead; it said: {reasons[-1]}",
        stacklevel=3,
    )
    return Compiled(model, reasons[-1])


def _of_bf16(model: nn.Module, example: Given) -> Accelerated | Compiled:
    """A model in bfloat16: kernels run the same in float32, with products of bfloat16."""
    wide = copy.deepcopy(model)._apply(widened)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not the model that was given
        found = _accelerated(wide, pytree.tree_map(widened, example))
    if isinstance(found, Compiled):  # it asks for types itself, say
        return _accelerated(model, example)
    return of_bf16(found, model, example)


def _apart(example: Given) -> Given:
    """Tensors that are not each other's: a trace takes one that is given twice for one input."""
    return pytree.tree_map(
        lambda x: x.detach().clone() if type(x) in (Tensor, nn.Parameter) else x, example
    )


def _widened(example: Given) -> Given | None:
    """Batches of one as batches of two: torch.export takes a size of 1 for always 1."""
    tensors = [x for x in pytree.tree_leaves(example) if isinstance(x, Tensor)]
    if not tensors or not all(x.dim() and x.shape[0] == 1 for x in tensors):
        return None
    return pytree.tree_map(lambda x: torch.cat((x, x)) if isinstance(x, Tensor) else x, example)


def _said_by(error: Exception) -> str:
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
