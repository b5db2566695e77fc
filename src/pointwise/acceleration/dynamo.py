"""``torch.compile(model, backend="pointwise")``.

Dynamo's graph goes through AOTAutograd, which leaves ATen calls that write to nothing, gives
parameters and buffers as inputs that stay the same, and takes care of inputs that are written to
and of results that share memory. What remains is compiled for its constants, and planned for each
shape of input as it comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, fx

from pointwise.acceleration.constants import Constants
from pointwise.acceleration.plan import Plan
from pointwise.acceleration.plans import Plans, Reasons, key_of
from pointwise.acceleration.report import Report
from pointwise.acceleration.resize import keep_resizing
from pointwise.acceleration.rewrite import rewritten
from pointwise.engine.cpu.changes import Snapshot, why_unseen

_SAMPLES = 31  # of each parameter
_compiled: WeakSet[CompiledGraph | PlainGraph] = WeakSet()


def backend(
    graph: fx.GraphModule, example_inputs: Sequence[Any], *, options: Any = None
) -> Callable:
    """Compiles a graph of Dynamo's for inference; with gradients it stays as it is.

    What torch.compile calls for ``backend="pointwise"``. Raises ValueError for ``options``.
    """
    if options:
        raise ValueError(f"torch.compile(backend='pointwise') takes no options, got {options}")
    return _started(graph, example_inputs, _compiled)


def backend_of(found: WeakSet[CompiledGraph | PlainGraph]) -> Callable:
    """A backend that also notes in ``found`` what it has compiled."""
    return partial(_started, found=found)


def _started(
    graph: fx.GraphModule, example_inputs: Sequence[Any], found: WeakSet[CompiledGraph | PlainGraph]
) -> Callable:
    # Imported here: a model that is read from a file needs none of it, nor its 90 MB.
    from torch._dynamo.backends.common import aot_autograd

    why = _why_not(graph, example_inputs)
    if why:
        left = PlainGraph(graph.forward, why)
        _compiled.add(left)
        found.add(left)
        return left
    keep_resizing(graph)
    compile_ = partial(_compile, found=found)
    return aot_autograd(fw_compiler=_refuse, inference_compiler=compile_)(graph, example_inputs)


def _why_not(graph: fx.GraphModule, example_inputs: Sequence[Any]) -> str | None:
    tensors = [x for x in example_inputs if isinstance(x, Tensor)]
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return "gradients are wanted; for inference, call it under torch.no_grad()"
    for node in graph.graph.nodes:
        if node.op == "call_function" and _is_training(node):
            return "the model is in training mode; for inference, call model.eval()"
    return None


# Where each says whether it is in training.
_TRAINED = {"batch_norm": 5, "dropout": 2, "dropout2d": 2, "dropout3d": 2, "alpha_dropout": 2}


def _is_training(node: fx.Node) -> bool:
    name = getattr(node.target, "__name__", "")
    place = _TRAINED.get(name, len(node.args))
    given = node.args[place] if place < len(node.args) else node.kwargs.get("training")
    if name == "batch_norm" and len(node.args) > 1 and node.args[1] is None:
        return False  # it has no statistics but those of the batch
    return name in _TRAINED and given is True


class PlainGraph:
    """A graph that is left to PyTorch as it is, and why."""

    def __init__(self, run: Callable, why: str) -> None:
        self._run, self._reasons = run, Reasons()
        self._reasons.note(why)

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)

    def reports(self) -> list[Report]:
        return self._reasons.reports()


def _refuse(graph: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable:
    raise AssertionError("graphs with gradients are not compiled")


def _compile(
    graph: fx.GraphModule, example_inputs: Sequence[Any], found: WeakSet[CompiledGraph | PlainGraph]
) -> Callable:
    """What AOTAutograd calls with a graph of ATen calls."""
    from torch._functorch.aot_autograd import make_boxed_func
    from torch._guards import TracingContext

    context = TracingContext.try_get()
    known = None if context is None else context.fw_metadata
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    compiled: CompiledGraph | PlainGraph
    if known is None or known.tokens or len(known.input_info) != len(inputs):
        compiled = PlainGraph(graph.forward, "it has effects besides its results")
    else:
        fixed = [
            i
            for i in known.static_input_indices
            if not known.input_info[i].mutates_data and isinstance(example_inputs[i], Tensor)
        ]
        compiled = CompiledGraph(graph, fixed)
    _compiled.add(compiled)
    found.add(compiled)
    return make_boxed_func(compiled)


class CompiledGraph:
    """A graph whose inputs ``fixed`` are constants until they change."""

    def __init__(self, graph: fx.GraphModule, fixed: Sequence[int]) -> None:
        self._plain = graph
        self._graph = rewritten(graph, fixed)
        self._placeholders = [node for node in self._graph.nodes if node.op == "placeholder"]
        self._fixed = list(fixed)
        self._moving = sorted(set(range(len(self._placeholders))) - set(fixed))
        self._snapshot: Snapshot | None = None
        self._constants: Constants | None = None
        self._plans = Plans()
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Sequence[Any]:
        fixed = [args[i] for i in self._fixed]
        moving = [args[i] for i in self._moving]
        plan = self._plan(fixed, moving)
        if isinstance(plan, str):
            return self._plain(*args)
        with torch.no_grad():
            return plan.run(moving)

    def reports(self) -> list[Report]:
        """What became of the graph, for each shape of input so far."""
        return self._plans.reports()

    def _plan(self, fixed: Sequence[Tensor], moving: Sequence[Any]) -> Plan | str:
        key = key_of(moving)
        if isinstance(key, str):
            return self._plans.note(key)
        if self._snapshot is not None and self._snapshot.is_still(fixed):
            plan = self._plans.get(key)
            if plan is not None:
                return plan
        with self._lock:
            for why in filter(None, map(why_unseen, fixed)):
                return self._plans.note(why)
            if self._snapshot is None or not self._snapshot.is_still(fixed):
                snapshot = Snapshot(fixed, _SAMPLES)
                constants = {self._placeholders[i] for i in self._fixed}
                self._constants = Constants(self._graph, constants)
                self._plans.clear()
                self._snapshot = snapshot
            assert self._constants is not None
            with self._constants.given(fixed):
                return self._plans.make(key, self._graph, self._constants, moving)


def reports(found: Iterable[CompiledGraph | PlainGraph] | None = None) -> list[Report]:
    """What became of all that was compiled so far: one for each graph and each shape of input."""
    some = list(_compiled if found is None else found)
    return [report for compiled in some for report in compiled.reports()]
