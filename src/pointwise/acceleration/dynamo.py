"""``torch.compile(model, backend="pointwise")``.

Dynamo's graph goes through AOTAutograd, which leaves ATen calls that write to nothing, gives
parameters and buffers as inputs that stay the same, and takes care of inputs that are written to
and of results that share memory. What remains is compiled for its constants, and planned for each
shape of input as it comes.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad

from pointwise.acceleration.buffers import layout_of
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.fuse import fuse
from pointwise.acceleration.micro_batches import make
from pointwise.acceleration.normalise import normalise
from pointwise.acceleration.plan import Plan
from pointwise.acceleration.planner import PLAIN, Unplannable
from pointwise.acceleration.report import Report
from pointwise.engine.cpu.changes import Snapshot, why_unseen
from pointwise.engine.cpu.launch import threads

_MOST = 8  # plans of one graph: so many shapes of input may take turns
_SAMPLES = 31  # of each parameter
_compiled: WeakSet[Compiled | Left] = WeakSet()
_said: set[str] = set()


def backend(
    graph: fx.GraphModule, example_inputs: Sequence[Any], *, options: Any = None
) -> Callable:
    """Compiles a graph of Dynamo's for inference; with gradients it stays as it is.

    What torch.compile calls for ``backend="pointwise"``. Raises ValueError for ``options``.
    """
    if options:
        raise ValueError(f"torch.compile(backend='pointwise') takes no options, got {options}")
    return _started(graph, example_inputs, _compiled)


def backend_of(found: WeakSet[Compiled | Left]) -> Callable:
    """A backend that also notes in ``found`` what it has compiled."""
    return partial(_started, found=found)


def _started(
    graph: fx.GraphModule, example_inputs: Sequence[Any], found: WeakSet[Compiled | Left]
) -> Callable:
    # Imported here: a model that is read from a file needs none of it, nor its 90 MB.
    from torch._dynamo.backends.common import aot_autograd

    why = _why_not(graph, example_inputs)
    if why:
        left = Left(graph.forward, why)
        _compiled.add(left)
        found.add(left)
        return left
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


def warn(why: str) -> None:
    """Once for each reason, however many graphs a model is cut into."""
    if why not in _said:
        _said.add(why)
        warnings.warn(f"pointwise: this runs as plain PyTorch: {why}", stacklevel=3)


class Left:
    """A graph that is left to PyTorch as it is, and why."""

    def __init__(self, run: Callable, why: str) -> None:
        self._run, self._why = run, why
        warn(why)

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)

    def reports(self) -> list[Report]:
        return [Report((), (), 0, self._why)]


def _refuse(graph: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable:
    raise AssertionError("graphs with gradients are not compiled")


def _compile(
    graph: fx.GraphModule, example_inputs: Sequence[Any], found: WeakSet[Compiled | Left]
) -> Callable:
    """What AOTAutograd calls with a graph of ATen calls."""
    from torch._functorch.aot_autograd import make_boxed_func
    from torch._guards import TracingContext

    context = TracingContext.try_get()
    known = None if context is None else context.fw_metadata
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    compiled: Compiled | Left
    if known is None or known.tokens or len(known.input_info) != len(inputs):
        compiled = Left(graph.forward, "it has effects besides its results")
    else:
        fixed = [
            i
            for i in known.static_input_indices
            if not known.input_info[i].mutates_data and isinstance(example_inputs[i], Tensor)
        ]
        compiled = Compiled(graph, fixed)
    _compiled.add(compiled)
    found.add(compiled)
    return make_boxed_func(compiled)


class Compiled:
    """A graph whose inputs ``fixed`` are constants until further notice."""

    def __init__(self, graph: fx.GraphModule, fixed: Sequence[int]) -> None:
        self._plain = graph
        self._graph = rewritten(graph, fixed)
        self._fixed = list(fixed)
        held = set(fixed)
        self._moving = [i for i in range(_inputs(graph)) if i not in held]
        self._snapshot: Snapshot | None = None
        self._constants: Constants | None = None
        self._plans: dict[tuple, Plan | str] = {}
        self._reasons = Reasons()
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Sequence[Any]:
        held = [args[i] for i in self._fixed]
        moving = [args[i] for i in self._moving]
        plan = self._plan(held, moving)
        if isinstance(plan, str):
            return self._plain(*args)
        with torch.no_grad():
            return plan.run(moving)

    def reports(self) -> list[Report]:
        """What became of the graph, for each shape of input so far."""
        plans = [report(key, plan) for key, plan in list(self._plans.items())]
        return self._reasons.reports() + plans

    def _plan(self, held: Sequence[Tensor], moving: Sequence[Any]) -> Plan | str:
        key = key_of(moving)
        if isinstance(key, str):
            return self._reasons.noted(key)
        if self._snapshot is not None and self._snapshot.is_still(held):
            found = self._plans.get(key)
            if found is not None:
                return found
        with self._lock:
            for why in filter(None, map(why_unseen, held)):
                return self._reasons.noted(why)
            if self._snapshot is None or not self._snapshot.is_still(held):
                snapshot = Snapshot(held, _SAMPLES)
                nodes = [node for node in self._graph.nodes if node.op == "placeholder"]
                self._constants = Constants(self._graph, {nodes[i] for i in self._fixed})
                self._plans, self._snapshot = {}, snapshot
            assert self._constants is not None
            with self._constants.given(held):
                self._plans[key] = found = planned(self._graph, self._constants, moving)
            if len(self._plans) > _MOST:
                self._plans.pop(next(iter(self._plans)))
            return found


def rewritten(graph: fx.GraphModule, fixed: Sequence[int]) -> fx.Graph:
    """A graph in the planner's vocabulary, with the inputs ``fixed`` as constants."""
    copy = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    copy.output(copy.graph_copy(graph.graph, values))
    copy.owning_module = graph
    old, new = (next(n for n in reversed(g.nodes) if n.op == "output") for g in (graph.graph, copy))
    parts = old.args[0] if isinstance(old.args[0], (list, tuple)) else [old.args[0]]
    new.meta["orders"] = [
        layout_of(part.meta.get("val")) if isinstance(part, fx.Node) else None for part in parts
    ]
    inputs = [node for node in copy.nodes if node.op == "placeholder"]
    normalise(copy)
    fuse(copy, {inputs[i] for i in fixed})
    for node in copy.nodes:
        node.meta["order"] = layout_of(node.meta.get("val"))
    return copy


def key_of(moving: Sequence[Any]) -> tuple | str:
    """What a plan depends on, or why there cannot be one."""
    key: list[Any] = [threads()]
    for x in moving:
        if type(x) is float:
            key.append((float, x.hex()))  # NaN too is itself, and 0.0 not -0.0
        elif isinstance(x, _VALUES):
            key.append((type(x), x))
        elif not isinstance(x, Tensor):
            return f"{type(x).__name__} is no plain tensor"
        elif is_wrapped(x):
            return "one of torch.func's transforms is at work"
        elif type(x) not in (Tensor, torch.nn.Parameter):
            return f"{type(x).__name__} is no plain tensor"
        elif x.device.type != "cpu" or x.layout != torch.strided:
            return f"an input on {x.device} with layout {x.layout}"
        elif x.is_conj() or x.is_neg():
            return "an input that is to be conjugated or negated"
        else:
            key.append((x.shape, x.stride(), x.dtype))
    return tuple(key)


_VALUES = (int, bool, str, complex, type(None))  # what may be among inputs, besides tensors, floats


def is_wrapped(x: Tensor) -> bool:
    """Whether a tensor is that of one of torch.func's transforms, and has no memory to look at."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)  # type: ignore[attr-defined]


def why_not_now() -> str | None:
    """Why nothing can run as kernels at the moment, whatever the inputs are.

    torch.compile asks for itself what its graphs depend on, and calls them in modes of its own.
    """
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on, and kernels compute in the types that a model has"
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return "it is being traced"
    if torch._C._len_torch_dispatch_stack():
        return "a TorchDispatchMode is on, which kernels would not show themselves to"
    if forward_ad._current_level >= 0:
        return "gradients are wanted, in forward mode"
    return None


class Reasons:
    """Why inputs or parameters are none that a plan could be made for, each once."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    def noted(self, why: str) -> str:
        if why not in self._found:
            self._found[why] = None
            warn(why)
        return why

    def reports(self) -> list[Report]:
        return [Report((), (), 0, why) for why in list(self._found)]


def planned(graph: fx.Graph, constants: Constants, moving: Sequence[Any]) -> Plan | str:
    """A plan, or why there is none. A warning says where nothing of it runs as a kernel."""
    try:
        plan = make(graph, constants, moving)
    except Unplannable as reason:
        warn(str(reason))
        return str(reason)
    plan.why = _why_nothing(plan, graph, constants, moving)
    if plan.why:
        warn(plan.why)
    return plan


def _why_nothing(plan: Plan, graph: fx.Graph, constants: Constants, moving: Sequence[Any]) -> str:
    """Why no call of a graph with parameters runs as a kernel; nothing where one does."""
    if not constants.fixed or not plan.entries or any(entry.fused for entry in plan.entries):
        return ""
    held = [node for node in graph.nodes if node in constants.fixed]
    tensors = [x for x in (*moving, *map(constants.value, held)) if isinstance(x, Tensor)]
    for dtype in dict.fromkeys(x.dtype for x in tensors if x.is_floating_point()):
        if dtype not in (torch.float32, torch.float64):
            return f"it computes in {dtype}, and kernels in float32 and float64"
    refused = [entry for entry in plan.entries if entry.why != PLAIN]
    if refused:
        return f"no call of it runs as a kernel; {refused[0].what}: {refused[0].why}"
    return f"no call of it is one that kernels know, such as {plan.entries[0].what}"


def report(key: tuple, plan: Plan | str) -> Report:
    shapes = tuple(tuple(part[0]) for part in key[1:] if isinstance(part[0], torch.Size))
    if isinstance(plan, str):
        return Report(shapes, (), 0, plan)
    return Report(shapes, plan.entries, plan.bytes, plan.why)


def reports(found: Iterable[Compiled | Left] | None = None) -> list[Report]:
    """What became of all that was compiled so far: one for each graph and each shape of input."""
    some = list(_compiled if found is None else found)
    return [report for compiled in some for report in compiled.reports()]


def _inputs(graph: fx.GraphModule) -> int:
    return sum(node.op == "placeholder" for node in graph.graph.nodes)
