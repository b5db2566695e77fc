"""``pointwise.accelerate(model, example)``: a model as a module of its own that runs faster."""

from __future__ import annotations

import inspect
import itertools
import threading
import warnings
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pointwise.acceleration import dynamo, guards, saved
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.frozen import Frozen, fold
from pointwise.acceleration.functional import make_functional
from pointwise.acceleration.plan import Plan
from pointwise.acceleration.precision import Cost, cost_of, to_int8
from pointwise.acceleration.report import Report

_MOST = 8  # plans: so many shapes of input may take turns


def accelerate(
    model: nn.Module,
    example: Any,
    precision: str | None = None,
    calibration: Iterable[Any] | None = None,
) -> Accelerated | Compiled:
    """A module that gives what ``model`` gives, in inference, and takes less time for it.

    ``example`` is an input, or a tuple of all of them: what the model is traced with. Its values do
    not matter, its shape does where the model depends on it; batches and images of other sizes are
    fine wherever the model itself does not fix them. The result is made of copies of the weights:
    what happens to the model later does not change it. It can be called from several threads,
    pickled and saved, and read again where the model's class is not known.

    Models that torch.export cannot trace (such as those that decide by values) are compiled with
    ``torch.compile(model, backend="pointwise")`` instead, which runs what it can.

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
    args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    found = _accelerated(model, args)
    if calibration is None:
        return found
    if isinstance(found, Compiled):
        raise ValueError(
            "accelerate: precision='int8' needs a model that torch.export can trace; it said: "
            f"{found.why}"
        )
    return to_int8(found, calibration, len(args))


def _accelerated(model: nn.Module, args: tuple) -> Accelerated | Compiled:
    reasons = []
    for given in (_widened(args), args):
        if given is None:
            continue
        try:
            found = _exported(model, given)
            found._check(args)
            why = _difference(model, found, args)
        except Exception as error:  # torch.export has many kinds
            why = _first_line(error)
        if not why:
            return found
        reasons.append(why)
    warnings.warn(
        "accelerate: torch.export cannot trace this model, which is compiled in pieces with "
        f"torch.compile instead; it said: {reasons[-1]}",
        stacklevel=3,
    )
    return Compiled(model, reasons[-1])


def _exported(model: nn.Module, args: tuple) -> Accelerated:
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
    with torch.inference_mode(there), torch.no_grad(), warnings.catch_warnings():
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
    names = ["L" + "".join(f"[{key!r}]" for key in _keys(path))
             for path, _ in pytree.tree_flatten_with_path(dict(bound.arguments))[0]]  # fmt: skip
    conditions = guards.rewrite(getattr(program, "_guards_code", None) or [], names)
    spec = program.call_spec
    return Accelerated(graph, tensors, conditions, spec.in_spec, spec.out_spec)


def _by_name(signature: inspect.Signature, shapes: tuple) -> list[Any]:
    """What belongs to each parameter of forward; ``*args`` takes all that is left."""
    found: list[Any] = []
    for i, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return [*found, tuple(shapes[i:])] if shapes[i:] else found
        if i < len(shapes):
            found.append(shapes[i])
    return found


def _keys(path: Sequence[Any]) -> list[Any]:
    return [getattr(key, "key", getattr(key, "idx", getattr(key, "name", None))) for key in path]


def _held(program: torch.export.ExportedProgram, name: str | None) -> Tensor:
    assert name is not None
    return program.state_dict[name] if name in program.state_dict else program.constants[name]


def _widened(args: tuple) -> tuple | None:
    """Batches of one as batches of two: torch.export takes a size of 1 for always 1."""
    tensors = [x for x in pytree.tree_leaves(args) if isinstance(x, Tensor)]
    if not tensors or not all(x.dim() and x.shape[0] == 1 for x in tensors):
        return None
    return pytree.tree_map(lambda x: torch.cat((x, x)) if isinstance(x, Tensor) else x, args)


def _difference(model: nn.Module, found: Accelerated, args: tuple) -> str:
    """Whether the new module gives something else than the model."""
    with torch.no_grad():
        wanted, given = pytree.tree_leaves(model(*args)), pytree.tree_leaves(found(*args))
    for one, other in zip(wanted, given, strict=True):
        if isinstance(one, Tensor) and one.is_floating_point():
            finite = one[one.isfinite()]
            scale = finite.abs().max().item() if finite.numel() else 0.0
            rough = one.dtype not in (torch.float32, torch.float64)
            if not torch.allclose(one, other, 0.1 if rough else 1e-3,
                                  (0.05 if rough else 1e-4) * scale, equal_nan=True):  # fmt: skip
                return "the traced model gives other results"
        elif isinstance(one, Tensor) and not torch.equal(one, other):
            return "the traced model gives other results"
    return ""


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()[:200]}" if lines else type(error).__name__


class Accelerated(nn.Module):
    """A model as a graph of kernels and plain calls; made by ``accelerate``.

    It is for inference on the CPU: its results have no gradients.
    """

    def __init__(
        self,
        graph: fx.Graph,
        tensors: dict[str, Tensor],
        conditions: Sequence[str],
        in_spec: pytree.TreeSpec,
        out_spec: pytree.TreeSpec,
    ) -> None:
        super().__init__()
        self._build(graph, tensors, list(conditions), in_spec, out_spec)
        self.training = False

    def _build(self, graph, tensors, conditions, in_spec, out_spec) -> None:
        self._graph, self._conditions = graph, conditions
        self._in_spec, self._out_spec = in_spec, out_spec
        self._constants = Frozen(graph, tensors)
        self._plain: fx.GraphModule | None = None
        self._plans: dict[tuple, Plan | str] = {}
        self._reasons = dynamo.Reasons()
        self._lock = threading.Lock()
        self._warned = False
        self.cost: Cost | None = None  # of int8

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs, spec = pytree.tree_flatten((args, kwargs))
        if spec != self._in_spec:
            raise ValueError(
                f"accelerated model: the inputs must be arranged as in the example, "
                f"{self._in_spec}, got {spec}"
            )
        if (
            torch.is_grad_enabled()
            and not self._warned
            and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        ):
            self._warned = True
            warnings.warn("an accelerated model gives no gradients", stacklevel=2)
        key = dynamo.key_of(inputs)
        plan: Plan | str | None
        if isinstance(key, str):
            self._check(inputs)
            plan = self._reasons.noted(key)
        else:
            plan = self._plans.get(key)
        if plan is None:
            plan = self._planned(key, inputs)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            found = self._run_plain(inputs) if isinstance(plan, str) else plan.run(inputs)
        return pytree.tree_unflatten(found, self._out_spec)

    def reports(self) -> list[Report]:
        """What runs as kernels, what as plain PyTorch, and why, for each shape so far."""
        plans = [dynamo.report(key, plan) for key, plan in list(self._plans.items())]
        return self._reasons.reports() + plans

    def extra_repr(self) -> str:
        lines = [] if self.cost is None else [str(self.cost)]
        return "\n".join(lines + [str(report) for report in self.reports()])

    def _check(self, inputs: Sequence[Any]) -> None:
        condition = guards.broken(self._conditions, pytree.tree_leaves(inputs))
        if condition is not None:
            shapes = [tuple(x.shape) for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor)]
            raise ValueError(
                f"accelerated model: inputs of sizes {shapes} do not fit; the model that was "
                f"traced asks for {condition}. Accelerate it again with such an example"
            )

    def _planned(self, key: Any, inputs: Sequence[Any]) -> Plan | str:
        self._check(inputs)
        with self._lock:
            plan = self._plans.get(key)
            if plan is None:
                plan = dynamo.planned(self._graph, self._constants, inputs)
                self._plans[key] = plan
                if len(self._plans) > _MOST:
                    self._plans.pop(next(iter(self._plans)))
            return plan

    def _run_plain(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """The graph call by call, in PyTorch."""
        with self._lock:
            if self._plain is None:
                self._plain = fx.GraphModule({}, self._graph)
            constants = list(self._constants.tensors().values())
        return self._plain(*constants, *inputs)

    def __getstate__(self) -> dict[str, Any]:
        more = {
            "conditions": self._conditions,
            "in": pytree.treespec_dumps(self._in_spec),
            "out": pytree.treespec_dumps(self._out_spec),
            "cost": None if self.cost is None else self.cost.as_plain(),
        }
        with self._lock:
            tensors = self._constants.tensors()
        return {
            "graph": saved.graph_to_text(self._graph, more),
            "weights": saved.weights_to_bytes(tensors),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        graph, more = saved.graph_from_text(state["graph"])
        in_spec, out_spec = (saved.spec_from_text(more[name]) for name in ("in", "out"))
        tensors = saved.weights_from_bytes(state["weights"])
        self._build(graph, tensors, more["conditions"], in_spec, out_spec)
        self.cost = cost_of(more.get("cost"))
        self.training = False


# What it is pickled as is text and bytes, checked as they are read: torch.load may do so with
# weights_only=True, where no file can run code.
torch.serialization.add_safe_globals([Accelerated])


class Compiled(nn.Module):
    """A model that torch.export could not trace, compiled in pieces; ``why`` says what it said.

    Pickled, it is the model; whoever reads it needs the model's class.
    """

    def __init__(self, model: nn.Module, why: str) -> None:
        super().__init__()
        self.model, self.why = model, why
        self._compile()
        self.training = False

    def _compile(self) -> None:
        self._found: WeakSet = WeakSet()
        self._reasons = dynamo.Reasons()
        # In a list, so as not to be a submodule.
        self._compiled = [torch.compile(self.model, backend=dynamo.backend_of(self._found))]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            found = self._compiled[0](*args, **kwargs)
        if not self._found:
            self._reasons.noted("torch.compile made no graph of it")
        return found

    def reports(self) -> list[Report]:
        """What runs as kernels, what as plain PyTorch, and why, for each graph and shape so far."""
        found = dynamo.reports(self._found)
        return found or self._reasons.reports()

    def extra_repr(self) -> str:
        return f"compiled in pieces, because torch.export said: {self.why}"

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "why": self.why}

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        self.model, self.why = state["model"], state["why"]
        self._compile()
        self.training = False
