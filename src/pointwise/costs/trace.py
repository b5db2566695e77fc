"""Runs a network on tensors without data and writes down what every operator costs, and where.

Weights become tensors that have a shape and no memory (PyTorch's fake tensors), and so does
whatever is computed from them. What was given as real tensors stays real until it meets a weight:
positions of points, and the neighbours found among them, are never multiplied by one, so that
clouds are counted as they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from pointwise.costs import elementwise, gradients, operators, own_operators, work_kinds
from pointwise.costs.count import Count
from pointwise.costs.formula import Formula, Work, arguments
from pointwise.costs.memory import Live

_FORMULAS: dict[str, Formula] = {
    **operators.FORMULAS,
    **own_operators.FORMULAS,
    **gradients.FORMULAS,
}
_LARGE = 1 << 20  # numbers; smaller tensors that a network makes itself have data


@dataclass
class ModuleWork:
    """The work of a module itself, without the modules inside it."""

    rank: int = -1  # when its first operator ran, among all places
    calls: int = 0
    in_shapes: tuple = ()
    out_shapes: tuple = ()
    parts: dict[str, Count] = field(default_factory=dict)  # by kind

    def add(self, kind: str, count: Count) -> None:
        self.parts[kind] = self.parts.get(kind, Count()) + count


@dataclass
class Recording:
    """The work of all modules by path ("" is the network itself), in the order they ran."""

    places: dict[str, ModuleWork]
    not_counted: dict[str, int]
    peak: int
    peak_at: str
    bound: bool


def trace(model: nn.Module, inputs: tuple, keywords: dict[str, Any]) -> Recording:
    """Runs ``model`` in evaluation mode, without gradients, and leaves it as it was.

    ``inputs`` and ``keywords`` are what it is called with; shapes among them (tuples of whole
    numbers, ``torch.Size``) become tensors without data.
    """
    paths: dict[int, str] = {}
    for path, module in model.named_modules():
        paths.setdefault(id(module), path)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    state = _without_data(model, fake)
    given, named = tree_map(
        lambda value: _input(value, model, fake), (list(inputs), keywords), is_leaf=is_shape
    )
    recorder = _Recorder(model, state, fake)
    recorder.live.add(x for x in tree_leaves((given, named)) if isinstance(x, Tensor))
    with ExitStack() as stack:
        stack.enter_context(_in_evaluation(model))
        stack.enter_context(_hooked(model, paths, recorder))
        stack.enter_context(torch.no_grad())
        # PyTorch's encoder layer is one operator in inference, which nobody can look into.
        stack.enter_context(_slow_encoder())
        stack.enter_context(_quiet())
        stack.enter_context(recorder)
        # Tied by ourselves: where one module is in two places, functional_call would swap its
        # tensors twice, and put the stand-ins back in the end.
        tied = state | _tied(model, state)
        functional_call(model, tied, tuple(given), named, tie_weights=False)
    recorder.finish()
    live = recorder.live
    return Recording(
        recorder.places, dict(recorder.not_counted), live.peak, live.peak_at, recorder.bound
    )


def is_shape(value: Any) -> bool:
    """Whether an input stands for a tensor of that shape."""
    return isinstance(value, (tuple, list, torch.Size)) and all(type(n) is int for n in value)


def _input(value: Any, model: nn.Module, fake: FakeTensorMode) -> Any:
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if is_shape(value):
        dtype = torch.float32 if first is None else first.dtype
        with fake:
            return torch.empty(tuple(value), dtype=dtype, device=_device_of(first))
    if isinstance(value, Tensor) and value.is_meta:
        with fake:
            return torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype, device=_device_of(first)
            )
    return value


def _device_of(tensor: Tensor | None) -> torch.device:
    return torch.device("cpu") if tensor is None or tensor.is_meta else tensor.device


def _without_data(model: nn.Module, fake: FakeTensorMode) -> dict[str, Tensor]:
    """Stand-ins for parameters and buffers; small whole numbers are copied, since code may ask."""
    found: dict[str, Tensor] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        whole = not (tensor.is_floating_point() or tensor.is_complex())
        if whole and not tensor.is_meta and tensor.numel() < _LARGE:
            found[name] = tensor.detach().clone()
            continue
        with fake:
            found[name] = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_device_of(tensor)
            )
    return found


def _tied(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The stand-ins of tensors that several modules share, under their other names, too."""
    first = {
        id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():  # each module once
        prefix = f"{path}." if path else ""
        own = {**module._parameters, **module._buffers}
        found |= {
            prefix + name: state[first[id(tensor)]]
            for name, tensor in own.items()
            if tensor is not None
        }
    return found


class _Recorder(TorchDispatchMode):
    """Sees every operator before it runs, and counts it where it runs."""

    def __init__(self, model: nn.Module, state: dict[str, Tensor], fake: FakeTensorMode) -> None:
        super().__init__()
        self.places: dict[str, ModuleWork] = {}
        self.path = [""]
        self.not_counted: Counter[str] = Counter()
        self.bound = False
        self.live = Live([*model.parameters(), *model.buffers(), *state.values()])
        self._fake = fake
        self._ranks = 0
        # Real and without data: modules may hold on to their own.
        self._names: dict[tuple[int, int], str] = {}
        self._left = {name: parameter.numel() for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            for tensor in (parameter, state[name]):
                self._names[_key(tensor)] = name

    def place(self, path: str) -> ModuleWork:
        return self.places.setdefault(path, ModuleWork())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name
        short = name.partition("::")[2]
        given = arguments(func, args, kwargs)
        out = self._stand_in(name, given)
        if out is None:
            formula = self._formula(func)
            if formula is None and short not in elementwise.FREE and func._can_decompose():
                with self:
                    return func.decompose(*args, **kwargs)
            out = self._run(func, args, kwargs, given)
        else:
            formula = self._formula(func)
        self._count(func, formula, given, out)
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.live.add(results, self.path[-1])
        return out

    def _run(self, func, args, kwargs, given) -> Any:
        if any(isinstance(x, Tensor) for x in tree_leaves(list(given.values()))):
            return func(*args, **kwargs)
        size = given.get("size")
        if is_shape(size) and torch.Size(size).numel() >= _LARGE:
            with self._fake:
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _stand_in(self, name: str, given: dict[str, Any]) -> Any:
        """The largest result of a search among points without data; None for other operators."""
        if not isinstance(given.get("points"), FakeTensor):
            return None
        points = given["points"]
        if name == "pointwise::cell_search":
            self.bound = True
            queries = given["queries"].shape[0]
            pairs = queries * points.shape[0]
            here, there = given["point_offsets"], given["query_offsets"]
            if not isinstance(here, FakeTensor) and not isinstance(there, FakeTensor):
                pairs = int((here.diff() * there.diff()).sum())
            rows = points.shape[0] if given["transposed"] else queries
            with self._fake:
                row_start = torch.empty(rows + 1, dtype=torch.int64, device=points.device)
                found = torch.empty(pairs, dtype=torch.int32, device=points.device)
            return row_start, found, torch.tensor(True)
        if name == "pointwise::voxel_grid":
            self.bound = True
            with self._fake:
                parent = torch.empty(points.shape[0], dtype=torch.int64, device=points.device)
            return points.clone(), given["offsets"].clone(), parent
        return None

    def _formula(self, func) -> Formula | None:
        name = func._schema.name
        if name in _FORMULAS:
            return _FORMULAS[name]
        space, _, short = name.partition("::")
        if space in ("aten", "prims"):
            found = elementwise.formula_of(short, torch.Tag.pointwise in func.tags)
            if found is not None:
                return found
        return _from_pytorch(func)

    def _count(self, func, formula: Formula | None, given: dict[str, Any], out: Any) -> None:
        name = func._schema.name
        space, _, short = name.partition("::")
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if short in elementwise.FREE or space == "prim" or self._is_view(func, given, results):
            return
        if formula is None or name in own_operators.WITHOUT_ARITHMETIC:
            self.not_counted[name] += 1
        parts = [elementwise.moved(given, out)] if formula is None else formula(given, out)
        place = self.place(self.path[-1])
        if place.rank < 0:
            place.rank = self._ranks = self._ranks + 1
        for part in parts:
            kind, parameters, known = self._weights_of(part)
            count = replace(part.count, parameters=parameters)
            if self.bound:
                count = replace(count, exact=False)
            if kind in (
                work_kinds.LINEAR,
                work_kinds.PRODUCT,
            ):  # by a weight, or of two activations
                kind = work_kinds.LINEAR if known else work_kinds.PRODUCT
            place.add(kind, count)

    def _is_view(self, func, given: dict[str, Any], results: list[Tensor]) -> bool:
        """Whether all results are views of the inputs."""
        if func._schema.is_mutable or not results:
            return False
        inputs = {
            x.untyped_storage()._cdata
            for x in tree_leaves(list(given.values()))
            if isinstance(x, Tensor)
        }
        return all(x.untyped_storage()._cdata in inputs for x in results)

    def _weights_of(self, part: Work) -> tuple[str, int, bool]:
        """The kind of work, how many parameters it is the first to use, and whether it uses any."""
        parameters, known = 0, False
        for tensor in part.weights:
            name = None if tensor is None else self._names.get(_key(tensor))
            if name is not None:
                known = True
                parameters += self._left.pop(name, 0)
        return part.kind, parameters, known

    def finish(self) -> None:
        """Adds parameters that no formula has met to the largest kind of work of their module."""
        for name, numbers in self._left.items():
            place = self.place(name.rpartition(".")[0])
            kind = largest(place.parts) if place.parts else work_kinds.NOTHING
            place.add(kind, Count(parameters=numbers))
        self._left = {}


def largest(parts: dict[str, Count]) -> str:
    """The kind of most multiply-adds; where there are none, of most operations, or bytes."""
    return max(
        parts,
        key=lambda kind: (parts[kind].multiply_adds, parts[kind].operations, parts[kind].bytes),
    )


def _key(tensor: Tensor) -> tuple[int, int]:
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def _from_pytorch(func) -> Formula | None:
    """What ``torch.utils.flop_counter`` knows about an operator that is not known here."""
    known = flop_registry.get(func.overloadpacket)
    if known is None:
        return None

    def formula(given, out) -> list[Work]:
        ordered = [given[argument.name] for argument in func._schema.arguments]
        products = known(*ordered, out_val=out) // 2
        part = elementwise.moved(given, out, work_kinds.PRODUCT)
        count = replace(
            part.count, multiplications=products, multiply_adds=products, additions=products
        )
        return [replace(part, count=count)]

    return formula


@contextmanager
def _hooked(model: nn.Module, paths: dict[int, str], recorder: _Recorder) -> Iterator[None]:
    """Tells the recorder which module is running."""
    handles = []

    def enter(module, given) -> None:
        path = paths[id(module)]
        recorder.path.append(path)
        place = recorder.place(path)
        place.calls += 1
        if place.calls == 1:
            place.in_shapes = _shapes(given)

    def leave(module, given, out) -> None:
        path = recorder.path.pop()
        place = recorder.place(path)
        if place.calls == 1:
            place.out_shapes = _shapes(out)

    for module in model.modules():
        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shapes(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(x.shape) for x in tree_leaves(value) if isinstance(x, Tensor))


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's own report of what goes wrong on tensors without data."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def _slow_encoder() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
