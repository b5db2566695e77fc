"""What ``pointwise.accelerate`` gives: a model as a module of kernels and plain calls."""

from __future__ import annotations

import copyreg
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pointwise.acceleration import guards, on_gpu, saved
from pointwise.acceleration.autocast import UnderAutocast
from pointwise.acceleration.bf16 import in_bf16
from pointwise.acceleration.frozen import Frozen
from pointwise.acceleration.graph import end_of
from pointwise.acceleration.inputs import Inputs
from pointwise.acceleration.plan import Plan
from pointwise.acceleration.plans import Plans, key_of
from pointwise.acceleration.quantisation_cost import QuantisationCost
from pointwise.acceleration.report import Report
from pointwise.engine.eager import is_wrapped, why_not_now

aten = torch.ops.aten


class Accelerated(nn.Module):
    """A model as a graph of kernels and plain calls; made by ``accelerate``.

    It is for inference: its results have no gradients. It stays in eval mode, and of the type that
    it was made of, and on the device. ``parameters()`` holds one empty parameter, which tells both;
    the folded weights, under names of their own, are in ``state_dict()``.
    """

    def __init__(
        self,
        graph: fx.Graph,
        tensors: dict[str, Tensor],
        inputs: Inputs,
        out_spec: pytree.TreeSpec,
        like: Tensor | None,
    ) -> None:
        """``like`` is an empty tensor of the type of the model's parameters, if it has any."""
        super().__init__()
        self._build(graph, tensors, inputs, out_spec, like)
        self.training = False

    def _build(self, graph, tensors, inputs, out_spec, like) -> None:
        self._graph, self.inputs, self.out_spec = graph, inputs, out_spec
        self._constants = Frozen(graph, tensors)
        self._plain: list[fx.GraphModule] = []  # in a list, so as not to be a submodule
        self._plans = Plans()
        self._devices: dict[str, Report] = {}  # GPUs that it ran on
        self._lock = threading.Lock()
        self._warned = False
        self._autocast = UnderAutocast()
        self.cost: QuantisationCost | None = None  # of int8 or bf16
        if like is not None:
            self.like = nn.Parameter(like, requires_grad=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # it is compiled already
            return torch.compiler.disable(self._run)(*args, **kwargs)
        return self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        inputs = self.inputs.flat(args, kwargs)
        if (device := on_gpu.device_of(inputs)) is not None:
            self.inputs.check(inputs)
            self._devices[str(device)] = Report((), (), 0, said=on_gpu.words(device))
            self._warn_of_gradients(inputs)
            return pytree.tree_unflatten(self.run_plain(inputs), self.out_spec)
        key = why_not_now() or key_of(inputs)
        plan: Plan | str | None
        if isinstance(key, str) and torch.is_autocast_enabled("cpu"):
            results = self._autocast.run(self, inputs)
            if results is not None:
                return pytree.tree_unflatten(results, self.out_spec)
            key += "; without autocast it runs as kernels in float32, which are faster here"
        if isinstance(key, str):
            self.inputs.check(inputs)
            plan = self._plans.note(key)
        else:
            plan = self._plans.get(key)
        if plan is None:
            plan = self._planned(key, inputs)
        self._warn_of_gradients(inputs)
        if isinstance(plan, str):
            found = self.run_plain(inputs)
        else:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                found = plan.run(inputs)
        return pytree.tree_unflatten(found, self.out_spec)

    def reports(self) -> list[Report]:
        """What runs as kernels, what as plain PyTorch, and why, for each shape so far."""
        return [*self._devices.values(), *self._plans.reports()]

    def extra_repr(self) -> str:
        lines = [] if self.cost is None else [str(self.cost)]
        return "\n".join(lines + [str(report) for report in self.reports()])

    def _warn_of_gradients(self, inputs: Sequence[Any]) -> None:
        if self._warned or not torch.is_grad_enabled() or _is_transformed(inputs):
            return
        if any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            self._warned = True
            warnings.warn("an accelerated model gives no gradients", stacklevel=5)

    def _planned(self, key: Any, inputs: Sequence[Any]) -> Plan | str:
        self.inputs.check(inputs)
        with self._lock:
            plan = self._plans.get(key)
            if plan is None:
                plan = self._plans.make(key, self._graph, self._constants, inputs)
            return plan

    def orders(self) -> list[Any]:
        """Of each result the dimensions as they lie in memory, where the trace knows that."""
        return end_of(self._graph).meta.get("orders") or []

    def keep_orders(self, places: Sequence[int]) -> None:
        """Results, by their places, lie as in the trace wherever inputs lie."""
        end_of(self._graph).meta["always"] = list(places)

    def in_bf16(self) -> Accelerated:
        """The same with products of bfloat16; itself where it has none that can be."""
        with self._lock:
            tensors = self._constants.tensors()
        graph = in_bf16(self._graph, tensors)
        return self if graph is None else self.with_graph(graph, tensors)

    def run_plain(self, inputs: Sequence[Any]) -> Any:
        """The graph call by call, in PyTorch, which sees autocast and torch.func's transforms."""
        with self._lock:
            if not self._plain:
                self._plain.append(fx.GraphModule({}, _without_views(self._graph)))
            constants = list(self._constants.tensors().values())
        if _is_transformed([*inputs, *constants]):
            return _apart(self._plain[0](*constants, *inputs), inputs)
        with torch.no_grad():
            found = self._plain[0](*constants, *inputs)
        if torch._C._len_torch_dispatch_stack():
            return _apart(found, inputs)
        own = {x.untyped_storage().data_ptr() for x in constants}
        return [x.clone() if _lies_in(x, own) else x for x in found]

    def with_graph(self, graph: fx.Graph, tensors: dict[str, Tensor]) -> Accelerated:
        """The same for another graph of the same inputs and results."""
        return Accelerated(graph, tensors, self.inputs, self.out_spec, self._like())

    def with_types(
        self, graph: fx.Graph, tensors: dict[str, Tensor], inputs: Sequence[torch.dtype | None]
    ) -> Accelerated:
        """``with_graph`` for tensors of other types among the inputs; its own is bfloat16."""
        new = self.with_graph(graph, tensors)
        new.inputs = self.inputs.of_types(inputs)
        like = new._like()
        if like is not None:
            new.like = nn.Parameter(like.bfloat16(), requires_grad=False)
        return new

    def _like(self) -> Tensor | None:
        """The empty tensor that tells the type of the weights, if there are any."""
        like = self._parameters.get("like")
        return None if like is None else like.detach()

    # --- what other code asks of a module ---

    def train(self, mode: bool = True) -> Accelerated:
        if mode:
            warnings.warn(
                "an accelerated model is for inference, and stays in eval mode", stacklevel=2
            )
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Accelerated:
        if requires_grad:
            raise ValueError(
                "accelerated model: its weights are folded and cannot be trained; train the model, "
                "and accelerate it afterwards"
            )
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> Accelerated:
        """What ``to``, ``half``, ``cuda`` and the like call: it stays of its type, where it is."""
        like = self._like()
        if like is None:
            return self
        other = fn(like)
        if (other.dtype, other.device) != (like.dtype, like.device):
            raise ValueError(
                f"accelerated model: it stays in {like.dtype} on {like.device} as it was made, and "
                f"cannot become {other.dtype} on {other.device}; convert the model, and accelerate "
                "that"
            )
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with self._lock:
            tensors = self._constants.tensors()
        destination.update({prefix + name: tensor.clone() for name, tensor in tensors.items()})

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        mine = [name for name in state_dict if name.startswith(prefix)]
        given = {name.removeprefix(prefix): state_dict[name] for name in mine}
        with self._lock:
            tensors = self._constants.tensors()
            if _alike(given) != _alike(tensors):
                error_msgs.append(
                    "accelerated model: these are not its own folded weights; load them into the "
                    "model, and accelerate that"
                )
                return
            copies = {name: given[name].detach().clone().contiguous() for name in tensors}
            self._constants = Frozen(self._graph, copies)
            self._autocast = UnderAutocast()
            self._plans.clear()

    # --- saved ---

    def __getstate__(self) -> dict[str, Any]:
        like = self._like()
        more = {
            **self.inputs.as_plain(),
            "out": pytree.treespec_dumps(self.out_spec),
            "like": None if like is None else str(like.dtype).removeprefix("torch."),
            "cost": None if self.cost is None else self.cost.as_plain(),
        }
        with self._lock:
            tensors = self._constants.tensors()
        return {
            "graph": saved.graph_to_text(self._graph, more),
            "weights": saved.weights_to_bytes(tensors),
        }

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """By old protocols, such as torch.save's, bytes would be half as long again, as text."""
        state = self.__getstate__()
        if protocol < 3:
            state["weights"] = saved.as_tensor(state["weights"])
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        graph, more = saved.graph_from_text(state["graph"])
        tensors = saved.weights_from_bytes(state["weights"])
        like = more["like"] and torch.empty(0, dtype=guards.dtype_of(more["like"]))
        out_spec = saved.spec_from_text(more["out"])
        self._build(graph, tensors, Inputs.from_plain(more), out_spec, like)
        cost = more.get("cost")
        self.cost = None if cost is None else QuantisationCost.from_plain(cost)
        self.training = False


# What it is pickled as is text and bytes, checked as they are read: torch.load may do so with
# weights_only=True, where no file can run code.
torch.serialization.add_safe_globals([Accelerated])


def _is_transformed(inputs: Sequence[Any]) -> bool:
    """Whether one of torch.func's transforms is at work, which takes care of gradients itself."""
    return any(isinstance(x, Tensor) and is_wrapped(x) for x in inputs)


def _without_views(graph: fx.Graph) -> fx.Graph:
    """The graph for PyTorch: copies are gone that only a view needed, which becomes a reshape."""
    own = fx.Graph()
    own.output(own.graph_copy(graph, {}))
    for node in own.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
    return own


def _apart(found: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Copies of results, where tensors have no memory that could be compared with ours."""
    own = {id(x) for x in inputs}
    return [x.clone() if isinstance(x, Tensor) and id(x) not in own else x for x in found]


def _lies_in(x: Any, storages: set[int]) -> bool:
    return type(x) is Tensor and x.untyped_storage().data_ptr() in storages


def _alike(tensors: Mapping[str, Tensor]) -> dict[str, tuple]:
    return {name: (x.shape, x.dtype) for name, x in tensors.items()}
