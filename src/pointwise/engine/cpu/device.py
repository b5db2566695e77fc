"""Functions that kernels call: compiled into each of them, and never to machine code of their own.

Numba would also make each of them a function that Python can call, which takes more than half of
the time of a kernel: optimised by itself, with two wrappers, and translated to machine code.
"""

from __future__ import annotations

from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder, _LowerResult
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

_OPTIONS = {"nogil": True, "error_model": "numpy"}


class _Library(JITCodeLibrary):
    """LLVM's form of a function, to be linked into others, and optimised there."""

    def _optimize_final_module(self) -> None: ...

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """To LLVM's form, and no further."""

    _name = "device_lowering"

    def run_pass(self, state) -> bool:
        state.library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        name = state.func_id.func_qualname

        def from_python(*arguments):
            raise TypeError(f"{name} is for kernels, and cannot be called from Python")

        # It also stands for the function where others call it.
        state.targetctx.insert_user_function(from_python, lowered.fndesc, [state.library])
        state.reload_init.extend(state.library._reload_init)
        state["cr"] = _LowerResult(
            lowered.fndesc, lowered.call_helper, cfunc=from_python, env=lowered.env
        )
        return True


class _Compiler(CompilerBase):
    def define_pipelines(self) -> list:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [
            (_Lowering if each is NativeLowering else each, title) for each, title in passes.passes
        ]
        passes._finalized = False
        passes.finalize()
        return [passes]


def _marked(function, **options):
    marked = njit(
        **_OPTIONS, **options, no_cpython_wrapper=True, no_cfunc_wrapper=True,
        pipeline_class=_Compiler,
    )(function)  # fmt: skip

    def add_overload(compiled) -> None:
        # Not to the table by which Python would call it.
        marked.overloads[tuple(compiled.signature.args)] = compiled

    marked.add_overload = add_overload
    return marked


def device(function):
    """Marks a function that kernels call."""
    return _marked(function)


def inlined(function):
    """``device`` for a part of a loop that is a function for its reader: no call is left of it."""
    return _marked(function, forceinline=True)


def device_of(*parts):
    """``device`` for functions that another function makes, which ``parts`` tell apart.

    Machine code is linked by name, also when it comes from the cache: two functions of one name
    would become one.
    """

    def mark(function):
        function.__qualname__ += "_".join(("", *map(str, parts)))
        return device(function)

    return mark
