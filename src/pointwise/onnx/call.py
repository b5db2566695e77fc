"""An operator of an ONNX file, as the function that reads it gets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from pointwise.onnx.graph import GraphBuilder
from pointwise.onnx.protobuf import Unreadable


@dataclass(frozen=True)
class Call:
    """An operator of a file: its type, ``Conv``, its name, the names of its inputs and results.

    ``version`` is that of ONNX's operators. ``asked`` are the attributes that were asked for. One
    that was not makes the file unreadable, so that none is passed over.
    """

    builder: GraphBuilder
    version: int
    kind: str
    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: dict[str, Any]
    asked: set[str] = field(default_factory=lambda: {"consumed_inputs"})  # of no effect, ever

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return self.attributes.get(name, default)

    def one_of(self, name: str, *allowed: Any) -> Any:
        """An attribute that must be among these; the first is its default."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise self.refuse(f"has {name} {value!r}, which is not read here")
        return value

    def without_effect(self, *names: str) -> None:
        """Attributes that change nothing here, whatever they are."""
        self.asked.update(names)

    def unasked(self) -> list[str]:
        return sorted(set(self.attributes) - self.asked)

    def refuse(self, why: str) -> Unreadable:
        name = f" of {self.outputs[0]!r}" if self.outputs else ""
        node = f" ({self.name})" if self.name else ""
        return Unreadable(f"{self.kind}{name}{node} {why}")

    def __call__(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.builder.call(function, *args, **kwargs)

    def whole(self, value: Any, name: str) -> list[int] | None:
        """Whole numbers that are an attribute or, in newer versions, a constant."""
        given = self.get(name)
        if given is not None:
            return list(given)
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise self.refuse(f"has {name} that depend on the input")
        return value.reshape(-1).tolist()

    def sizes(self, value: Any, name: str) -> Any:
        """``whole``, or a node of whole numbers that are computed from sizes of the input."""
        if not isinstance(value, fx.Node):
            return self.whole(value, name)
        known = self.builder.numbers.get(value)
        if known is None or known.rank != 1:
            raise self.refuse(f"has {name} that depend on values of the input")
        return value

    def scalar(self, value: Any) -> Any:
        """A constant of one number as that number; anything else as it is."""
        if isinstance(value, Tensor) and value.dim() == 0:
            return value.item()
        return value


def are_constant(*values: Any) -> bool:
    return all(value is None or isinstance(value, Tensor) for value in values)


def padding(call: Call, dims: int) -> tuple[list[int], str]:
    """``pads``, those before all axes first, and ``auto_pad``, which says where there are none."""
    auto = call.one_of("auto_pad", "NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER")
    pads, none = list(call.get("pads", [0] * (2 * dims))), [0] * (2 * dims)
    if auto not in ("NOTSET", ""):
        return none, auto
    if len(pads) != 2 * dims or min(pads, default=0) < 0:
        raise call.refuse(f"has pads {pads} around {dims} dimensions")
    return pads, auto
