"""Kernels for GPUs: on one where there is one, by Triton's interpreter where there is none."""

from __future__ import annotations

import pytest
import torch

import pointwise.operators  # noqa: F401  (registers the operators)
from pointwise.engine import library

pytest.importorskip("triton", reason="Triton is not installed")

if not torch.cuda.is_available():
    import triton.language as tl
    from triton.runtime import interpreter

    def _call(self, *arguments, **constants):
        """A function that a kernel calls. Triton's own way replaces the functions of the language
        for every such call, which takes milliseconds; once is enough."""
        seen = self.fn.__globals__.values()
        if any(tl.core.is_builtin(each.load) for each in seen if each is tl or each is tl.core):
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*arguments, **constants)

    interpreter.InterpretedFunction.__call__ = _call


@pytest.fixture
def device(monkeypatch):
    """Where tensors have to be for the operators to run as kernels for GPUs."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    with torch.library._scoped_library("pointwise", "IMPL") as here:
        for name, form in library.on_gpu.items():
            here.impl(name, form, "CPU", allow_override=True)
            monkeypatch.setattr(library.ops, name, getattr(torch.ops.pointwise, name))
        yield "cpu"
