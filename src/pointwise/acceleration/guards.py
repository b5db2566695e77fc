"""What a traced model takes for given about its inputs, and whether inputs keep to it.

A trace holds for tensors of the types and numbers of dimensions of the example, for its other
values (numbers, bools, strings, None), and for sizes that meet conditions, texts of arithmetic.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pointwise.acceleration import foreign
from pointwise.messages import shortened

_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.FloorDiv, ast.Mod, ast.Pow, ast.UnaryOp, ast.USub, ast.Not, ast.Compare, ast.Eq, ast.NotEq,
    ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Constant, ast.Subscript, ast.Load, ast.Name,
    ast.Call,
)  # fmt: skip
_NAMES = {"max": max, "min": min}
_AGAIN = "Accelerate it again with such an example"


@dataclass(frozen=True)
class Traced:
    """What one input was in the example: the type of a tensor, or any other value itself."""

    name: str
    value: Any = None
    dtype: str | None = None  # of a tensor, "float32"
    dims: int = 0
    device: str = "cpu"

    @classmethod
    def of(cls, name: str, x: Any) -> Traced:
        if not isinstance(x, Tensor):
            return cls(name, x)
        return cls(name, None, str(x.dtype).removeprefix("torch."), x.dim(), x.device.type)

    def check(self, x: Any) -> None:
        """Raises ValueError where the trace does not hold for ``x``."""
        if self.dtype is None:
            fits, wanted = is_same(self.value, x), repr(self.value)
        else:
            fits = isinstance(x, Tensor) and (
                x.dtype == getattr(torch, self.dtype)
                and x.dim() == self.dims
                and x.device.type == self.device
                and x.layout == torch.strided
            )
            wanted = f"a {self.dtype} tensor of {self.dims} dimensions on {self.device}"
        if not fits:
            raise ValueError(
                f"accelerated model: {self.name} must be {wanted}, as in the example that the "
                f"model was traced with, got {_described(x)}. {_AGAIN}"
            )

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Traced:
        """The inverse of ``as_plain``, from JSON. Raises ValueError for what is none."""
        names = [field.name for field in fields(cls)]
        if not isinstance(plain, dict) or sorted(plain) != sorted(names):
            raise ValueError(f"what was traced must have {', '.join(names)}, got {plain!r}")
        if plain["dtype"] is not None:
            dtype_of(plain["dtype"])
        if not isinstance(plain["value"], (bool, int, float, str, type(None))):
            raise ValueError(f"a value that was traced is a number or text, got {plain['value']!r}")
        return cls(**plain)


def dtype_of(name: Any) -> torch.dtype:
    """torch's type of this name. Raises ValueError where there is none."""
    found = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no dtype {name!r}")
    return found


def check(inputs: Sequence[Any], traced: Sequence[Traced], conditions: Sequence[str]) -> None:
    """Raises ValueError where a trace does not hold for inputs, given in a row."""
    for found, x in zip(traced, inputs, strict=True):
        found.check(x)
    condition = broken(conditions, inputs)
    if condition is not None:
        names = ", ".join(
            f"sizes[{i}] are those of {found.name}"
            for i, found in enumerate(traced)
            if f"sizes[{i}]" in condition
        )
        shapes = [tuple(x.shape) for x in inputs if isinstance(x, Tensor)]
        raise ValueError(
            f"accelerated model: inputs of sizes {shapes} do not fit; the model that was traced "
            f"asks for {condition} ({names}). {_AGAIN}"
        )


def is_same(one: Any, other: Any) -> bool:
    """Whether values are the same to the bit: True is not 1, 0.0 not -0.0, and NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return float(one).hex() == float(other).hex()
    return bool(one == other)


def _described(x: Any) -> str:
    if isinstance(x, Tensor):
        dtype, layout = (str(part).removeprefix("torch.") for part in (x.dtype, x.layout))
        kind = "" if x.layout == torch.strided else f"{layout} "
        return f"a {kind}{dtype} tensor of shape {tuple(x.shape)} on {x.device.type}"
    short = shortened(repr(x))
    return short if isinstance(x, (bool, str, type(None))) else f"{short} ({type(x).__name__})"


def rewrite(guards: Sequence[str], names: Sequence[str]) -> list[str]:
    """Guards of torch.export on ``L['x'].size()[i]`` as conditions on ``sizes[input][i]``.

    ``names`` are what the guards call the inputs. Raises ValueError for what is none on sizes.
    """
    found = []
    for guard in guards:
        for i in sorted(range(len(names)), key=lambda i: -len(names[i])):
            guard = guard.replace(f"{names[i]}.size()", f"sizes[{i}]")
        _checked(guard)
        found.append(guard)
    return found


def broken(guards: Sequence[str], inputs: Sequence[Any]) -> str | None:
    """The first condition that inputs do not meet."""
    # torch.jit.trace makes tensors of sizes
    sizes = [tuple(map(int, x.shape)) if isinstance(x, Tensor) else () for x in inputs]
    for guard in guards:
        try:
            holds = eval(_checked(guard), {"__builtins__": {}, "sizes": sizes, **_NAMES})
        except ZeroDivisionError:  # of a size of 0
            holds = False
        if not holds:
            return guard
    return None


@lru_cache(maxsize=4096)
def _checked(guard: str):
    """The condition as code, if it is arithmetic on sizes."""
    tree = ast.parse(guard, mode="eval")
    foreign.check_sizes(tree)
    for part in ast.walk(tree):
        name = part.id if isinstance(part, ast.Name) else "sizes"
        if not isinstance(part, _ALLOWED) or name not in ("sizes", *_NAMES):
            raise ValueError(f"a condition that is not on sizes: {guard}")
    return compile(tree, "<guard>", "eval")
