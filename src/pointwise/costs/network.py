"""What a network costs: counted, layer by layer, on tensors without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from pointwise import checks
from pointwise.costs import work_kinds
from pointwise.costs.count import Count, total
from pointwise.costs.layer import Branch, Layer
from pointwise.costs.tables import kind_table, layer_table, plain, short, tree_table
from pointwise.costs.trace import ModuleWork, Recording, is_shape, largest, trace
from pointwise.messages import first_line


@dataclass(frozen=True)
class Cost:
    """What a network costs; ``print(cost(model, shape))`` shows all of it as tables.

    ``peak_bytes`` is the most memory that activations, the input among them, take at once when
    layers run one after the other without gradients, and ``peak_at`` the layer at that moment; what
    operators use inside is not known. ``not_counted`` says how often operators ran of which only
    the bytes are counted, not the arithmetic.
    """

    network: str
    layers: list[Layer]
    peak_bytes: int
    peak_at: str
    not_counted: dict[str, int]
    types: dict[str, str] = field(repr=False)  # of all modules, by path

    @property
    def totals(self) -> Count:
        """Of the whole network."""
        return total(layer.count for layer in self.layers)

    def by_kind(self) -> dict[str, Count]:
        """Kinds of convolution, and of everything else, in the order of ``costs.work_kinds``."""
        found: dict[str, Count] = {}
        for layer in self.layers:
            for kind, count in layer.parts.items():
                found[kind] = found.get(kind, Count()) + count
        return {kind: found[kind] for kind in work_kinds.ORDER if kind in found}

    def tree(self, depth: int | None = None) -> list[Branch]:
        """All modules in the order of the tree, each with all inside it, down to ``depth``."""
        sums = dict.fromkeys(self.types, Count())
        for layer in self.layers:
            path = layer.path
            while True:
                sums[path] = sums[path] + layer.count
                if not path:
                    break
                path = path.rpartition(".")[0]
        return [
            Branch(path, kind, level, sums[path])
            for path, kind in self.types.items()
            for level in [len(path.split(".")) if path else 0]
            if depth is None or level <= depth
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and words, for JSON."""
        return {
            "network": self.network,
            "totals": self.totals.as_dict(),
            "peak_bytes": self.peak_bytes,
            "peak_at": self.peak_at,
            "by_kind": {kind: count.as_dict() for kind, count in self.by_kind().items()},
            "not_counted": self.not_counted,
            "layers": [
                {
                    "layer": layer.name,
                    "type": layer.type,
                    "kind": layer.kind,
                    "calls": layer.calls,
                    "input": [list(shape) for shape in layer.in_shapes],
                    "output": [list(shape) for shape in layer.out_shapes],
                    **layer.count.as_dict(),
                }
                for layer in self.layers
            ],
        }

    def table(self, by: str = "layers", depth: int | None = None) -> str:
        """A table in 80 columns: of ``"layers"``, of ``"kinds"``, or the ``"tree"`` of modules.

        ``depth`` is how far down the tree goes.
        """
        checks.one_of("table", "by", by, ("layers", "kinds", "tree"))
        if by == "tree":
            return plain([tree_table(self.tree(depth))])
        return plain([layer_table(self.layers) if by == "layers" else kind_table(self.by_kind())])

    def notes(self) -> list[str]:
        """What the tables do not say: the memory's peak, what is a bound, what is not counted."""
        found = [f"activations: {short(self.peak_bytes)}B at most at once, in {self.peak_at}"]
        padding = self.totals.on_padding
        if padding:
            share = 100 * padding / self.totals.multiply_adds
            found.append(f"{short(padding)} of the multiply-adds ({share:.1f} %) meet padding")
        if not self.totals.exact:
            found.append(
                "≤: upper bounds, since points were given by their shape: every point is taken for "
                "a neighbour of every other one; give real points for exact counts"
            )
        if self.not_counted:
            names = ", ".join(
                f"{name.replace('::', '.')} ×{times}" for name, times in self.not_counted.items()
            )
            found.append(f"arithmetic not counted: {names}")
        return found

    def __str__(self) -> str:
        layers, by_kind = layer_table(self.layers), kind_table(self.by_kind())
        return plain([layers, "", by_kind, "", *self.notes()])


def cost(model: nn.Module | Callable[..., Any], *inputs: Any, **keywords: Any) -> Cost:
    """Counts what ``model(*inputs, **keywords)`` costs in inference, without computing it.

    An input is a tensor, or a shape such as ``(1, 3, 224, 224)``, or whatever else the model takes.
    Weights are neither read nor copied, and may be on the ``meta`` device; the model is left as it
    was. Any module or function of PyTorch's will do: what is counted are the operators that run,
    ours among them. See ``Count`` for what is counted and how, and docs/counting.md for how other
    tools count.

    Convolutions on clouds depend on which points are neighbours: give points as a real tensor, and
    counts are exact; where they are a shape, every point is taken for a neighbour of every other
    one, and counts are upper bounds (``totals.exact`` is False).

    Raises ValueError where the model cannot be run on such inputs.

    >>> from pointwise.networks import MobileNetV1
    >>> cost(MobileNetV1(), (1, 3, 224, 224)).totals.multiply_adds
    568740352
    """
    network = _module(model)
    if not inputs and not keywords:
        raise ValueError(
            f"cost: {_name(model)} needs its inputs, or their shapes, as in "
            "cost(model, (1, 3, 224, 224))"
        )
    _refuse_lazy(network)
    try:
        found = trace(network, inputs, keywords)
    except Exception as error:  # a model's own code may raise anything
        raise ValueError(_reason(model, inputs, error)) from error
    types = {path: type(module).__name__ for path, module in network.named_modules()}
    types[""] = _name(model)
    return Cost(
        network=_name(model),
        layers=_layers(found, types),
        peak_bytes=found.peak,
        peak_at=found.peak_at or f"({_name(model)})",
        not_counted=dict(sorted(found.not_counted.items())),
        types=types,
    )


def _module(model: nn.Module | Callable[..., Any]) -> nn.Module:
    if isinstance(model, type) or not callable(model):
        what = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise TypeError(
            f"cost: model must be a module or a function of tensors, got {what}"
            + ("; call it to make a module" if isinstance(model, type) else "")
        )
    if isinstance(model, nn.Module):
        return getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
    return _Function(model)


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self.function(*inputs, **keywords)


def _name(model: Any) -> str:
    if isinstance(model, nn.Module):
        return type(getattr(model, "_orig_mod", model)).__name__
    return getattr(model, "__name__", type(model).__name__)


def _refuse_lazy(network: nn.Module) -> None:
    for path, module in network.named_modules():
        if any(is_lazy(x) for x in module.parameters(recurse=False)):
            raise ValueError(
                f"cost: {path or type(module).__name__} is lazy and does not know its size yet; "
                "call the model once, or give it its sizes"
            )


def _reason(model: Any, inputs: tuple, error: Exception) -> str:
    from torch._subclasses.fake_tensor import DataDependentOutputException as Value
    from torch._subclasses.fake_tensor import DynamicOutputShapeException as Size

    given = ", ".join(_shown(value) for value in inputs)
    name = _name(model)
    if isinstance(error, (Value, Size)):
        return (
            f"cost: {name} asks for values of tensors that have a shape only ({error}), on "
            f"{given}; where those come from an input, give it as a real tensor; what depends on "
            "values that were computed with weights cannot be counted"
        )
    return f"cost: {name} does not run on {given}: {first_line(error, most=None)}"


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", value)
    return str(tuple(shape)) if is_shape(shape) else type(value).__name__


def _layers(found: Recording, types: dict[str, str]) -> list[Layer]:
    """A layer for each module with its own work or parameters; those that never ran come last."""
    last = len(found.places) + 1
    busy = [(path, place) for path, place in found.places.items() if place.parts]
    busy.sort(key=lambda entry: entry[1].rank if entry[1].rank >= 0 else last)
    return [_layer(path, place, types) for path, place in busy]


def _layer(path: str, place: ModuleWork, types: dict[str, str]) -> Layer:
    parts = {kind: place.parts[kind] for kind in work_kinds.ORDER if kind in place.parts}
    return Layer(
        path,
        types.get(path, ""),
        largest(parts),
        place.calls,
        place.in_shapes,
        place.out_shapes,
        parts,
    )
