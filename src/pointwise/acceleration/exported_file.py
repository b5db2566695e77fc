"""Programs of ``torch.export`` in files, read only where reading runs no code of theirs.

``torch.export.load`` is not made for files from others. It unpickles whatever a file holds, loads
its compiled libraries, evaluates sizes written as text, imports modules that structures name, and
writes names into Python code. So a file is checked beforehand, part by part, against what
``torch.export.save`` writes for a network of PyTorch's operators, in its layouts since 2.5; of
everything else, a line says what it is.
"""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

import pointwise.operators  # noqa: F401  (registers torch.ops.pointwise)
from pointwise.acceleration import foreign


class Untrusted(ValueError):
    """Says what of a file may run code."""


def load(path: Path, trust: bool = False) -> torch.export.ExportedProgram:
    """The program in a file.

    Raises Untrusted, a ValueError, for a file that may run code as it is read or run, unless there
    is ``trust`` in whoever made it, and whatever torch.export.load raises for one that is broken.
    """
    if not trust:
        check(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PyTorch wrote itself
        return torch.export.load(path)


def check(path: Path) -> None:
    """Raises Untrusted for a file that may run code; a broken one may pass."""
    for name, read in _members(path):
        look = next((look for kind, look in _PARTS if re.fullmatch(kind, name)), None)
        try:
            if look is None:
                raise ValueError("a part that is no data")
            look(read)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Untrusted(f"{path} may run code of its own: {name!r}: {error}") from error


def _members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """What torch.export.load may read, through the libraries that it reads it with.

    They need not agree on what an archive holds. Of the second, only the layout before 2.8 is read.
    """
    with suppress(RuntimeError):  # it is none of the new layout, or none at all
        reader = torch._C.PyTorchFileReader(str(path))
        for name in reader.get_all_records():
            yield name, partial(reader.get_record, name)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                if name.startswith("serialized_"):
                    yield name, partial(file.read, name)


# --- parts of the archive -------------------------------------------------------------------------


def _inert(read: Callable[[], bytes]) -> None:
    """Numbers, or text that nobody looks at."""


def _pickled(read: Callable[[], bytes]) -> None:
    data = read()
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # pickle, zip and torch raise a dozen types
        reason = re.search(r"Unsupported (global|class|operand)[^.\n]*[.\w]*", str(error))
        said = f" ({reason.group().strip()})" if reason else ""
        raise ValueError(f"a pickle that holds more than tensors{said}") from error


def _config(read: Callable[[], bytes]) -> None:
    """Which part holds which weight."""
    for payload in _json(read)["config"].values():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise ValueError("a weight that is pickled")
        _look(payload, "config")


def _program(read: Callable[[], bytes]) -> None:
    _look(_json(read), "program")


def _json(read: Callable[[], bytes]) -> Any:
    try:
        return json.loads(read().decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({type(error).__name__})") from error


_PARTS = [
    (r"models/.+\.json", _program),
    (r"serialized_exported_program\.json", _program),
    (r"data/(weights|constants)/.+_(weights|constants)_config\.json", _config),
    (r"data/(weights|constants|sample_inputs)/.+\.pt", _pickled),
    (r"serialized_(state_dict|constants|example_inputs)\.(pt|json)", _pickled),
    (r"data/weights/weight_\d+", _inert),
    (r"data/constants/tensor_\d+", _inert),
    (r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version", _inert),
    (r"\.storage_alignment|(extra|extra_files)/.+|.*/", _inert),
]

# --- the graph ------------------------------------------------------------------------------------

_FREE = ("as_string", "as_strings", "stack_trace", "source_fn_stack", "torch_fn", "custom",
         "from_node")  # fmt: skip
_NAMES = ("name", "as_name", "forward_arg_names", "field_names")
_HIGHER = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "cond", "while_loop", "map_impl",
           "scan", "associative_scan")  # fmt: skip


def _look(part: Any, key: str) -> None:
    """Checks all strings, each by the key that it stands at."""
    if isinstance(part, dict):
        if "custom_obj" in part or "as_custom_obj" in part:
            raise ValueError("an object of a class of its own")
        for name, item in part.items():
            _plain(name)
            _look(item, name)
    elif isinstance(part, list):
        for item in part:
            _look(item, key)
    elif isinstance(part, str) and key not in _FREE:
        _LOOKS.get(key, _plain)(part)


def _plain(text: str) -> None:
    """Paths of modules and the like, which are quoted where they become code."""
    if not re.fullmatch(r"[^\"'\\\x00-\x1f\x7f-\x9f\u2028\u2029]*", text):
        raise ValueError(f"a name with quotes or the like, {text[:80]!r}")


def _path(text: str) -> None:
    """Where a call came from: the same, and ``L['self']``."""
    _plain(text.replace("'", ""))


def _name(text: str) -> None:
    if text and not text.isidentifier():
        raise ValueError(f"a name that is no identifier, {text[:80]!r}")


def _call(text: str) -> None:
    if text.removeprefix("torch.ops.higher_order.") in _HIGHER:
        return
    if not text.startswith(("torch.", "_operator.", "math.")):
        raise ValueError(f"no call is named {text!r}")
    is_operator = text.startswith("torch.ops.")
    foreign.call_of(text.removeprefix("torch.") if is_operator else text.removeprefix("_"))


def _structure(text: str) -> None:
    for name in foreign.check_structure(text):
        if not re.fullmatch(r"[\w.\-/ ]*", name):
            raise ValueError(f"a structure with a name that is more than that, {name[:80]!r}")


# What sympy is asked for: classes by these names, of numbers, of symbols that are identifiers.
_FUNCTIONS = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Abs", "Eq",
    "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "LessThan", "StrictLessThan",
    "GreaterThan", "StrictGreaterThan", "And", "Or", "Not", "sign", "floor", "ceiling", "sqrt",
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt",
    "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv",
    "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
    "IsNonOverlappingAndDenseIndicator",
}  # fmt: skip


def _expression(text: str) -> None:
    """A size, which sympy evaluates."""

    def is_known(part: ast.AST) -> bool:
        if isinstance(part, ast.Call):
            return isinstance(part.func, ast.Name) and part.func.id in _FUNCTIONS
        if isinstance(part, ast.Name):
            return part.id.isidentifier() and not part.id.startswith("__")
        return isinstance(part, (ast.keyword, ast.Tuple))

    for part in ast.walk(foreign.parsed(text, is_known)):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            _symbol(part.value)


def _symbol(text: str) -> None:
    if not re.fullmatch(r"\w+|-?[\d.]+(e[+-]?\d+)?", text) or len(text) > 100:
        raise ValueError(f"a symbol that is no name, {text[:80]!r}")


def _condition(text: str) -> None:
    """A condition on inputs, which becomes Python code: ``L['x'].size()[0] >= 2``."""

    def is_known(part: ast.AST) -> bool:
        if isinstance(part, ast.Attribute):
            return part.attr in ("size", "stride", "storage_offset", "dtype", "device")
        if isinstance(part, ast.Call):
            function = part.func
            return isinstance(function, ast.Attribute) or (
                isinstance(function, ast.Name) and function.id in (*_FUNCTIONS, "max", "min", "abs")
            )
        if isinstance(part, ast.Name):
            return part.id in ("L", "max", "min", "abs", *_FUNCTIONS)
        return isinstance(part, (ast.Subscript, ast.Is, ast.IsNot))

    for part in ast.walk(foreign.parsed(text, is_known)):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            _name(part.value)


_LOOKS: dict[str, Callable[[str], None]] = {
    **dict.fromkeys(_NAMES, _name),
    "target": _call,
    "as_operator": _call,
    "in_spec": _structure,
    "out_spec": _structure,
    "expr_str": _expression,
    "guards_code": _condition,
    "nn_module_stack": _path,
}
