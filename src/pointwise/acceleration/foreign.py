"""What files from others may hold: calls by their names, arithmetic as text, structures of inputs.

Nothing of it is run to find out: names are looked up in lists, text is parsed and compared with
what is known. Everything here raises ValueError for what is not.
"""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

_SPACES = ("aten", "prims", "pointwise", "torchvision", "quantized_decomposed")
# What reads and writes files, prints, or takes memory that is not a tensor's own.
_SPARSE = ("coo", "compressed", "csr", "csc", "bsr", "bsc")
_EFFECTS = {
    "from_file", "save", "_print", "set", "set_", "set_data", "record_stream",
    "_nested_view_from_buffer", "_nested_view_from_buffer_copy",
    *(f"_sparse_{kind}_tensor_unsafe" for kind in _SPARSE),
}  # fmt: skip
_ARITHMETIC: dict[str, tuple[Any, tuple[str, ...]]] = {
    "operator": (operator, ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos",
                            "abs", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "xor", "not_",
                            "invert", "lshift", "rshift", "index", "getitem", "is_",
                            "is_not")),
    "math": (math, ("ceil", "floor", "trunc", "fabs", "sqrt", "isqrt", "pow", "exp", "log", "log2",
                    "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")),
    "torch": (torch, ("sym_max", "sym_min", "sym_int", "sym_float", "sym_not", "sym_ite", "sym_sum",
                      "_sym_sqrt", "_sym_ceil", "_sym_floor")),
}  # fmt: skip

# --- calls ----------------------------------------------------------------------------------------


def name_of(target: Any) -> str:
    """``ops.aten.relu.default``, ``operator.add`` …: what ``call_of`` finds again."""
    if isinstance(target, torch._ops.OpOverload):
        name = f"ops.{target}"
        call_of(name)
        return name
    name = getattr(target, "__name__", "")
    for module, (where, known) in _ARITHMETIC.items():
        if name in known and getattr(where, name, None) is target:
            return f"{module}.{name}"
    raise ValueError(f"{target} cannot be saved by its name")


def call_of(name: str) -> Any:
    """An operator of PyTorch's or of ours that only computes, or a function of arithmetic."""
    kind, *rest = name.split(".")
    if kind == "ops" and len(rest) == 3:
        return _operator(*rest)
    if kind in _ARITHMETIC and len(rest) == 1:
        where, known = _ARITHMETIC[kind]
        if rest[0] in known and hasattr(where, rest[0]):
            return getattr(where, rest[0])
    raise ValueError(f"no call is named {name!r}")


def _operator(space: str, name: str, overload: str) -> Any:
    whole = f"{space}::{name}" + ("" if overload == "default" else f".{overload}")
    if space not in _SPACES or name in _EFFECTS:
        raise ValueError(
            f"{whole} is none of the operators that a file may call: those of "
            f"{', '.join(_SPACES)} that only compute"
        )
    if space == "pointwise":
        import pointwise.operators  # noqa: F401  (few models name them: not for all that are read)
    found = getattr(getattr(getattr(torch.ops, space), name, None), overload, None)
    # TorchScript has functions by such names too, which are no operators; one writes files.
    if not isinstance(found, torch._ops.OpOverload) or not torch._C._dispatch_has_kernel(whole):
        raise ValueError(f"no call is named {f'ops.{space}.{name}.{overload}'!r}")
    return found


# --- arithmetic as text ---------------------------------------------------------------------------

_LONGEST = 50_000  # characters
_LARGEST = 65_536  # bits of any number on the way; sizes have 64
_OPERATORS = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.FloorDiv, ast.Mod, ast.Pow, ast.UnaryOp, ast.USub, ast.UAdd, ast.Not, ast.Compare, ast.Eq,
    ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Constant, ast.Load,
)  # fmt: skip


def parsed(text: str, is_known: Callable[[ast.AST], bool]) -> ast.Expression:
    """Arithmetic, and whatever else ``is_known``; numbers in it stay small."""
    if len(text) > _LONGEST:
        raise ValueError(f"an expression of {len(text):,} characters, and {_LONGEST:,} are enough")
    try:
        tree = ast.parse(text, mode="eval")
        for part in ast.walk(tree):
            if not isinstance(part, _OPERATORS) and not is_known(part):
                raise ValueError(f"more than arithmetic: {text[:120]!r}")
        check_sizes(tree)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"no arithmetic: {text[:120]!r} ({type(error).__name__})") from None
    return tree


def check_sizes(tree: ast.AST) -> None:
    """Raises ValueError for arithmetic that may take for ever, such as ``9**9**9``."""
    if _bits(tree) > _LARGEST:
        raise ValueError("an expression whose numbers have no end")


_NUMBERS = ("Integer", "Rational", "Float")
_POWERS = ("Pow", "PowByNatural", "FloatPow", "LShift")


def _bits(node: ast.AST) -> float:
    """At most so many bits are in the number that an expression comes to."""
    if isinstance(node, ast.Constant):
        return _bits_of_constant(node.value)
    parts = [_bits(part) for part in ast.iter_child_nodes(node)]
    if isinstance(node, (ast.Name, ast.Subscript)):
        return 64.0
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _POWERS and len(node.args) > 1:
            return _bits_of_power(parts[1], node.args[1])
        return sum(parts) if name == "Mul" else max(parts) + len(parts)
    if isinstance(node, ast.BinOp):
        if any(_is_text(part) for part in (node.left, node.right)):
            raise ValueError("arithmetic with text")
        if isinstance(node.op, ast.Pow):
            return _bits_of_power(parts[0], node.right)
        if isinstance(node.op, ast.Mult):
            return sum(parts)
    return max(parts, default=0.0) + 1


def _bits_of_constant(value: Any) -> float:
    if isinstance(value, (str, type(None))):
        return 0.0
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"a constant of type {type(value).__name__}")
    return float(value.bit_length()) if isinstance(value, int) else 64.0


def _bits_of_power(base: float, exponent: ast.AST) -> float:
    """Powers are of small whole numbers, written down."""
    if isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub):
        return _bits_of_power(base, exponent.operand)
    if isinstance(exponent, ast.Call):  # Integer(2), Rational(1, 2)
        if not isinstance(exponent.func, ast.Name) or exponent.func.id not in _NUMBERS:
            raise ValueError("a power that is no small number")
        return max((_bits_of_power(base, part) for part in exponent.args), default=0.0)
    value = exponent.value if isinstance(exponent, ast.Constant) else None
    if not isinstance(value, (int, float)) or abs(value) > 64:
        raise ValueError("a power that is no small number")
    return (base + 1) * max(1.0, abs(value))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and not isinstance(node.value, (bool, int, float))


# --- structures -----------------------------------------------------------------------------------


def check_structure(text: str) -> list[str]:
    """Checks what ``pytree.treespec_loads`` is to read; returns the names in it.

    Some structures name a module, which reading would import.
    """
    try:
        _, spec = json.loads(text)
        return _names_in(spec)
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"no structure of inputs: {text[:120]!r}") from error


def _names_in(spec: dict[str, Any]) -> list[str]:
    kind, context = spec["type"], spec["context"]
    if kind == "collections.defaultdict":
        raise ValueError("a structure with a defaultdict, which names a function to import")
    if isinstance(context, str):
        with suppress(ValueError):  # the name of a class, and no JSON
            context = json.loads(context)
    inner = [name for part in spec["children_spec"] for name in _names_in(part)]
    return [*_texts(kind), *_texts(context), *inner]


def _texts(part: Any) -> list[str]:
    """All strings in JSON."""
    if isinstance(part, dict):
        if "__enum__" in part:
            raise ValueError("a structure with an enum, which names a module to import")
        return [*part, *(text for item in part.values() for text in _texts(item))]
    if isinstance(part, list):
        return [text for item in part for text in _texts(item)]
    return [part] if isinstance(part, str) else []
