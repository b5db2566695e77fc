"""What the key of cached kernels assumes: a compiled function needs its own file and the engine.

A name from elsewhere, be it a function or a number, is compiled into the machine code, which would
be used on after that file has changed.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pointwise

ROOT = Path(pointwise.__file__).parent
MARKS = {"kernel", "device", "device_of", "inlined", "host", "intrinsic", "by_dtype", "njit"}


def _name(node: ast.expr) -> str:
    """``host`` of ``host``, ``host()`` and ``launch.host()``."""
    while isinstance(node, ast.Call):
        node = node.func
    return getattr(node, "id", getattr(node, "attr", ""))


def compiled(tree: ast.Module) -> list[ast.FunctionDef]:
    """The functions that are marked, or handed to a mark."""
    handed = {
        given.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _name(call.func) in MARKS
        for given in call.args
        if isinstance(given, ast.Name)
    }
    return [
        function
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and (function.name in handed or any(_name(d) in MARKS for d in function.decorator_list))
    ]


def foreign(source: str) -> list[str]:
    """What compiled functions read of this package outside of their file and of the engine."""
    tree = ast.parse(source)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                imported[name.asname or name.name] = f"{node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                imported[name.asname or name.name.split(".")[0]] = name.name
    return [
        f"{function.name}: {imported[node.id]}"
        for function in compiled(tree)
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name)
        and imported.get(node.id, "").startswith("pointwise")
        and not imported[node.id].startswith("pointwise.engine.")
    ]


FILES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in sorted(ROOT.rglob("*.py"))
    if ROOT / "engine" not in file.parents
}
KERNELS = [file for file, source in FILES.items() if compiled(ast.parse(source))]


def test_kernels_outside_of_the_engine_are_found():
    expected = {"rooms/cast.py", "cloud/files/pcd.py", "costs/machine.py", "costs/measure.py"}
    assert expected <= set(KERNELS)


@pytest.mark.parametrize("file", KERNELS)
def test_a_kernel_outside_of_the_engine_needs_only_its_file_and_the_engine(file):
    assert foreign(FILES[file]) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from pointwise.rooms.solids import BALL\n@host()\ndef f(x): return x + BALL",
         ["f: pointwise.rooms.solids.BALL"]),
        ("import pointwise.checks as c\n@kernel\ndef f(a, b, c_): c.fail()",
         ["f: pointwise.checks"]),
        ("from pointwise.rooms import g\ndef f(x): return g(x)\nh = host()(f)",
         ["f: pointwise.rooms.g"]),
        ("from pointwise.engine.cpu.vector import fma\n@device\ndef f(x): return fma(x, x, x)", []),
        ("from pointwise.rooms import g\ndef f(x): return g(x)", []),
    ],
)  # fmt: skip
def test_what_is_foreign(source, found):
    assert foreign(source) == found
