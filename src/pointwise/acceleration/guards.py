"""What an exported graph asks of its inputs: conditions on sizes, as text of arithmetic."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pointwise.acceleration import foreign

_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.FloorDiv, ast.Mod, ast.Pow, ast.UnaryOp, ast.USub, ast.Not, ast.Compare, ast.Eq, ast.NotEq,
    ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Constant, ast.Subscript, ast.Load, ast.Name,
    ast.Call,
)  # fmt: skip
_NAMES = {"max": max, "min": min}


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
    sizes = [tuple(x.shape) if isinstance(x, Tensor) else () for x in inputs]
    for guard in guards:
        if not eval(_checked(guard), {"__builtins__": {}, "sizes": sizes, **_NAMES}):
            return guard
    return None


def _checked(guard: str):
    """The condition as code, if it is arithmetic on sizes."""
    tree = ast.parse(guard, mode="eval")
    foreign.check_sizes(tree)
    for part in ast.walk(tree):
        name = part.id if isinstance(part, ast.Name) else "sizes"
        if not isinstance(part, _ALLOWED) or name not in ("sizes", *_NAMES):
            raise ValueError(f"a condition that is not on sizes: {guard}")
    return compile(tree, "<guard>", "eval")
