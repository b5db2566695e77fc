"""``pointwise.accelerate(model, example)``: a model traced by torch.export.

A trace holds for what the example was. What export itself does not guard is guarded here: types and
values of inputs, and sizes that it takes for fixed. What cannot be guarded is tried (``holds.py``),
and where the trace gives something else, torch.compile takes over.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils import _pytree as pytree

from pointwise.acceleration import dynamo, guards, holds
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.frozen import fold
from pointwise.acceleration.functional import make_functional
from pointwise.acceleration.guards import Traced
from pointwise.acceleration.module import Accelerated, Compiled
from pointwise.acceleration.precision import to_int8


def accelerate(
    model: nn.Module,
    example: Any,
    precision: str | None = None,
    calibration: Iterable[Any] | None = None,
) -> Accelerated | Compiled:
    """A module that gives what ``model`` gives, in inference, and takes less time for it.

    ``example`` is an input, or a tuple of all of them: what the model is traced with. The values of
    its tensors do not matter, their types do, and their shapes where the model depends on them:
    batches and images of other sizes are fine wherever the model itself does not fix them. Numbers,
    strings, booleans and None among the inputs are part of the trace. What the trace does not hold
    for is refused with a ValueError when it comes. The result is made of copies of the weights:
    what happens to the model later does not change it. It can be called from several threads,
    pickled and saved, and read again where the model's class is not known.

    Models that torch.export cannot trace (such as those that decide by values) are compiled with
    ``torch.compile(model, backend="pointwise")`` instead, which runs what it can; a warning says
    so.

    ``precision="int8"`` makes convolutions in bytes where that pays, several times as fast as in
    float32 on machines with AVX512-VNNI, and not quite the same: ``calibration`` is a DataLoader or
    a list of batches of data such as the model will see (some hundred samples do; with labels
    behind the inputs, if there are any), which tells how large the numbers between layers become.
    It is run once as it is and once in bytes, and ``cost`` of the result says how far apart they
    were. On machines without VNNI the results are the same, and slower than float32.

    Raises ValueError for a model in training mode, or one that ``precision`` does not suit,
    TypeError for what is not a module.

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
    if precision not in (None, "int8"):
        raise ValueError(
            f"accelerate: precision must be 'int8', or None for the model's own, got {precision!r}"
        )
    if (precision is None) != (calibration is None):
        given = "without" if calibration is None else "with"
        raise ValueError(
            f"accelerate: precision={precision!r} {given} calibration; int8 needs calibration "
            "data, and nothing else does"
        )
    _warn_of_hooks(model)
    args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    with torch.autocast("cpu", enabled=False):  # whether it is on is asked at every call
        found = _accelerated(model, args)
        if calibration is None:
            return found
        if isinstance(found, Compiled):
            raise ValueError(
                "accelerate: precision='int8' needs a model that torch.export can trace; it said: "
                f"{found.why}"
            )
        return to_int8(found, calibration, len(args))


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


def _accelerated(model: nn.Module, args: tuple) -> Accelerated | Compiled:
    reasons = []
    args = _apart(args)
    for given in (_widened(args), args):
        if given is None:
            continue
        try:
            trace = _traced(model, given)
            trace.found._check(pytree.tree_leaves(args))
            why = holds.why_not(model, trace.found, args) or holds.tried(model, trace, given)
        except Exception as error:  # torch.export has many kinds
            why = _first_line(error)
        if not why:
            return trace.found
        reasons.append(why)
    warnings.warn(
        "accelerate: torch.export cannot trace this model, which is compiled in pieces with "
        f"torch.compile instead; it said: {reasons[-1]}",
        stacklevel=3,
    )
    return Compiled(model, reasons[-1])


def _apart(args: tuple) -> tuple:
    """Tensors that are not each other's: a trace takes one that is given twice for one input."""
    return pytree.tree_map(
        lambda x: x.detach().clone() if type(x) in (Tensor, nn.Parameter) else x, args
    )


def _widened(args: tuple) -> tuple | None:
    """Batches of one as batches of two: torch.export takes a size of 1 for always 1."""
    tensors = [x for x in pytree.tree_leaves(args) if isinstance(x, Tensor)]
    if not tensors or not all(x.dim() and x.shape[0] == 1 for x in tensors):
        return None
    return pytree.tree_map(lambda x: torch.cat((x, x)) if isinstance(x, Tensor) else x, args)


# --- torch.export ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """An accelerated model and the sizes of its inputs: numbers, or expressions of open ones."""

    found: Accelerated
    sizes: list[tuple[Any, ...]]


def _traced(model: nn.Module, args: tuple) -> Trace:
    """A model through torch.export. Raises whatever stands in the way."""
    auto = torch.export.Dim.AUTO
    shapes = pytree.tree_map(
        lambda x: (
            {i: auto for i, size in enumerate(x.shape) if size > 1}
            if isinstance(x, Tensor)
            else None
        ),
        args,
    )
    signature = inspect.signature(model.forward)
    bound = signature.bind(*args)
    named = dict(zip(bound.arguments, _by_name(signature, shapes), strict=True))
    own = itertools.chain(model.parameters(), model.buffers())
    # A model made in inference mode can only be traced there.
    there = torch.is_inference_mode_enabled() or any(x.is_inference() for x in own)
    with (
        _left_as_it_is(model), torch.inference_mode(there), torch.no_grad(),
        warnings.catch_warnings(),
    ):  # fmt: skip
        warnings.simplefilter("ignore")
        program = torch.export.export(model, args, dynamic_shapes=named, strict=False)
        if not make_functional(program.graph_module.graph):
            program = torch.export.export(model, args, dynamic_shapes=named, strict=False)
            program = program.run_decompositions({})
    specs = program.graph_signature.input_specs
    kinds = [spec.kind.name for spec in specs]
    if not set(kinds) <= {"PARAMETER", "BUFFER", "CONSTANT_TENSOR", "USER_INPUT"}:
        raise ValueError(f"inputs of kinds {sorted(set(kinds))}")
    results = {spec.kind.name for spec in program.graph_signature.output_specs}
    if results - {"USER_OUTPUT"}:
        raise ValueError("it writes to its inputs or buffers")
    fixed = [i for i, kind in enumerate(kinds) if kind != "USER_INPUT"]
    held = [_held(program, specs[i].target) for i in fixed]
    graph = dynamo.rewritten(program.graph_module, fixed)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    constants = Constants(graph, {inputs[i] for i in fixed})
    with constants.given(held):
        graph, tensors = fold(graph, constants)
    sizes = [_sizes(node) for node, kind in zip(inputs, kinds, strict=True) if kind == "USER_INPUT"]
    paths = pytree.tree_flatten_with_path(dict(bound.arguments))[0]
    traced = [Traced.of(_named(path), x) for path, x in paths]
    asked = [*_fixed_sizes(sizes), *_conditions(program, [path for path, _ in paths])]
    conditions = list(dict.fromkeys(asked))
    spec = program.call_spec
    like = next((x for x in held if x.is_floating_point()), None)
    empty = None if like is None else torch.empty(0, dtype=like.dtype, device=like.device)
    return Trace(
        Accelerated(graph, tensors, traced, conditions, spec.in_spec, spec.out_spec, empty), sizes
    )


@contextmanager
def _left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Puts back what a model keeps of itself: what it makes while traced has no values."""
    before = [_copied(vars(part)) for part in model.modules()]
    try:
        yield
    finally:
        for copied in before:
            _put_back(copied)


def _copied(kept: Any) -> Any:
    """Of lists, dicts and sets within each other: them and copies, and everything else itself."""
    if type(kept) is dict:
        return kept, {name: _copied(value) for name, value in kept.items()}
    if type(kept) is list:
        return kept, [_copied(value) for value in kept]
    return (kept, set(kept)) if type(kept) is set else (kept, None)


def _put_back(copied: tuple[Any, Any]) -> Any:
    own, parts = copied
    if type(own) is dict:
        found = {name: _put_back(part) for name, part in parts.items()}
        own.clear()
        own.update(found)
    elif type(own) is list:
        own[:] = [_put_back(part) for part in parts]
    elif type(own) is set:
        own.clear()
        own.update(parts)
    return own


def _by_name(signature: inspect.Signature, shapes: tuple) -> list[Any]:
    """What belongs to each parameter of forward; ``*args`` takes all that is left."""
    found: list[Any] = []
    for i, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return [*found, tuple(shapes[i:])] if shapes[i:] else found
        if i < len(shapes):
            found.append(shapes[i])
    return found


def _conditions(program: torch.export.ExportedProgram, paths: Sequence[Any]) -> list[str]:
    """What the trace asks of sizes."""
    found = getattr(program, "_guards_code", None)
    if found is None:
        raise ValueError("this PyTorch does not say what its traces ask of sizes")
    return guards.rewrite(found, ["L" + "".join(map(_guarded, path)) for path in paths])


def _guarded(key: Any) -> str:
    """How guards reach a part of an input: ``['boxes']``, ``.name`` of a named tuple."""
    name = getattr(key, "name", None)
    return f"[{_keys([key])[0]!r}]" if name is None else f".{name}"


def _keys(path: Sequence[Any]) -> list[Any]:
    return [getattr(key, "key", getattr(key, "idx", getattr(key, "name", None))) for key in path]


def _named(path: Sequence[Any]) -> str:
    """An input as forward calls it: ``mask``, ``boxes[2]``."""
    first, *rest = _keys(path)
    return f"{first}{''.join(f'[{key!r}]' for key in rest)}"


def _held(program: torch.export.ExportedProgram, name: str | None) -> Tensor:
    assert name is not None
    return program.state_dict[name] if name in program.state_dict else program.constants[name]


def _sizes(node: torch.fx.Node) -> tuple[Any, ...]:
    """Of an input: numbers, and sympy's expressions where sizes are open."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return ()
    found = [size if isinstance(size, int) else size.node.expr for size in value.shape]
    return tuple(int(size) if isinstance(size, int) or size.is_number else size for size in found)


def _fixed_sizes(sizes: Sequence[tuple[Any, ...]]) -> list[str]:
    """Conditions for the sizes that the trace takes for always the same."""
    return [
        f"sizes[{i}][{dim}] == {size}"
        for i, shape in enumerate(sizes)
        for dim, size in enumerate(shape)
        if isinstance(size, int)
    ]


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()[:200]}" if lines else type(error).__name__
