"""A model traced by torch.export, as an accelerated model.

A trace holds for what the example was. What export itself does not guard is guarded here: types and
values of inputs, and sizes that it takes for fixed.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pointwise.acceleration import guards
from pointwise.acceleration.arguments import Arguments, Given
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.frozen import fold
from pointwise.acceleration.functional import make_functional
from pointwise.acceleration.guards import Traced
from pointwise.acceleration.inputs import Inputs
from pointwise.acceleration.module import Accelerated
from pointwise.acceleration.module_state import ModuleState
from pointwise.acceleration.rewrite import rewritten
from pointwise.acceleration.whole import WholeCalls, known_activations
from pointwise.acceleration.windows import cuts_windows


@dataclass(frozen=True)
class Trace:
    """An accelerated model and the sizes of its inputs: numbers, or expressions of open ones."""

    found: Accelerated
    sizes: list[tuple[Any, ...]]
    is_cut: bool  # into windows, for which only batches are left open


def traced(model: nn.Module, example: Given) -> Trace:
    """Traces a model with torch.export, and folds its constants; raises where that fails.

    ``example`` is by place as far as that goes, as ``Arguments.arranged`` has it.
    """
    arguments, (args, kwargs) = Arguments.of(model.forward, example), example
    named = arguments.named(args, kwargs)
    own = itertools.chain(model.parameters(), model.buffers())
    # A model made in inference mode can only be traced there.
    there = torch.is_inference_mode_enabled() or any(x.is_inference() for x in own)
    with (
        _left_as_it_is(model),
        torch.inference_mode(there),
        torch.no_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        with _left_as_it_is(model):  # what it keeps now would be constants of the trace
            is_cut = cuts_windows(model, example)
        shapes = pytree.tree_map(partial(_open, dims=1 if is_cut else None), named)
        export = partial(torch.export.export, model, args, kwargs, dynamic_shapes=shapes)
        with _quick():
            program = export(strict=False)
        if not make_functional(program.graph_module.graph):
            with _quick():
                program = export(strict=False)
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
    graph = rewritten(program.graph_module, fixed)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    constants = Constants(graph, {inputs[i] for i in fixed})
    with constants.given(held):
        graph, tensors = fold(graph, constants)
    sizes = [_sizes(node) for node, kind in zip(inputs, kinds, strict=True) if kind == "USER_INPUT"]
    paths = pytree.tree_flatten_with_path(named)[0]
    examples = [Traced.of(_named(path), x) for path, x in paths]
    asked = [*_fixed_sizes(sizes), *_conditions(program, [path for path, _ in paths])]
    spec = program.call_spec
    asks = Inputs(arguments, spec.in_spec, examples, list(dict.fromkeys(asked)))
    like = next((x for x in held if x.is_floating_point()), None)
    empty = None if like is None else torch.empty(0, dtype=like.dtype, device=like.device)
    return Trace(Accelerated(graph, tensors, asks, spec.out_spec, empty), sizes, is_cut)


def _open(x: Any, dims: int | None) -> dict[int, Any] | None:
    """Which sizes of an input are left open: those of the first ``dims``, but for 1."""
    if not isinstance(x, Tensor):
        return None
    return {i: torch.export.Dim.AUTO for i, size in enumerate(x.shape[:dims]) if size > 1}


@contextmanager
def _quick() -> Iterator[None]:
    """Where exports take less time: PyTorch's cache of shapes finds little where they are open, and
    asks much about each to put it there (a quarter of the time, of GhostNet)."""
    from torch._dynamo import config  # imported by torch.export in any case

    with WholeCalls(), known_activations(), config.patch(fake_tensor_cache_enabled=False):
        yield


@contextmanager
def _left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Restores a model's attributes: tensors that it makes while traced have no values."""
    state = ModuleState(model)
    try:
        yield
    finally:
        state.restore()


def _conditions(program: torch.export.ExportedProgram, paths: Sequence[Any]) -> list[str]:
    """The guards of the trace, as conditions on sizes."""
    found = getattr(program, "_guards_code", None)
    if found is None:
        raise ValueError("this PyTorch does not say what its traces ask of sizes")
    return guards.rewrite(found, ["L" + "".join(map(_guarded, path)) for path in paths])


def _guarded(key: Any) -> str:
    """An entry of an input as guards write it: ``['boxes']``, or ``.name`` of a named tuple."""
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
    """The sizes of an input: numbers, and sympy's expressions where they are open."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return ()
    found = [size if isinstance(size, int) else size.node.expr for size in value.shape]
    return tuple(int(size) if isinstance(size, int) or size.is_number else size for size in found)


def _fixed_sizes(sizes: Sequence[tuple[Any, ...]]) -> list[str]:
    """Conditions that sizes which the trace takes for fixed are so."""
    return [
        f"sizes[{i}][{dim}] == {size}"
        for i, shape in enumerate(sizes)
        for dim, size in enumerate(shape)
        if isinstance(size, int)
    ]
