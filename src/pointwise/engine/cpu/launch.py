"""A grid launch, as on a GPU: one function pointer, called once for every program id.

A kernel is a function of ``(arguments, program, thread)``, all int64: the address of a table of
int64 (pointers and sizes), which piece of the work to do, and which thread does it (for scratch
memory only: a result must never depend on it). It is called by Numba's own convention, so that the
launch learns what it raises and raises it again. Kernels compile serially, which is quick; only
``_launch`` below pays for Numba's parallel compiler, once.
"""

from __future__ import annotations

import os
import threading
import warnings
from array import array as numbers
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NoReturn

import numba
import numpy as np
import torch  # before Numba's pool starts, so that both bind to one OpenMP runtime
from llvmlite import ir
from numba import carray, njit, prange, types
from numba.core.callconv import RETCODE_USEREXC, Status, excinfo_ptr_t
from numba.core.ccallback import CFunc, _CFuncCompiler  # type: ignore[attr-defined]
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads
from torch import Tensor

from pointwise.engine.cpu import record
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.kernel_cache import KernelCache
from pointwise.engine.cpu.layout import Arguments
from pointwise.engine.cpu.vector import peek, poke

_KERNEL = ((types.int64, types.int64, types.int64), types.void)
_workqueue_lock = threading.Lock()
_no_lock = nullcontext()
_compile_lock = threading.RLock()
_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


# A forked child (a DataLoader worker) inherits an OpenMP runtime whose threads did not come along.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


class _KernelCompiler(_CFuncCompiler):
    def _customize_flags(self, flags):
        flags = super()._customize_flags(flags)
        flags.no_cfunc_wrapper = True
        return flags


class _Kernel(CFunc):
    """A function that is called by address, without Numba's wrapper for C.

    The wrapper prints what the function raises, and returns as if nothing had happened. Without it
    the function returns a status, which ``_call`` reads.
    """

    _cache: Any
    _cache_hits: int
    _compile_uncached: Any
    _compiler: Any
    _library: Any
    _sig: Any
    _targetdescr: Any
    _wrapper_name: str
    _wrapper_address: int

    def __init__(self, function, signature, locals, options) -> None:
        super().__init__(function, signature, locals, options)
        self._compiler = _KernelCompiler(function, self._targetdescr, options, locals, Compiler)

    def compile(self) -> None:
        with global_compiler_lock:
            context = self._targetdescr.target_context
            found = self._cache.load_overload(self._sig, context)
            self._cache_hits += found is not None
            if found is None:
                found = self._compile_uncached()
                self._cache.save_overload(self._sig, found)
            self._library = found.library
            self._wrapper_name = found.fndesc.llvm_func_name
            self._wrapper_address = self._library.get_pointer_to_function(self._wrapper_name)
            # Exceptions with values that are not constant are made of it.
            environment = context.get_env_name(found.fndesc)
            self._library.codegen.set_env(environment, found.environment)


class kernel:
    """Marks ``function(arguments, program, thread)`` for ``launch``.

    It compiles at first use, not at import, and the result is cached on disk. Functions made by
    another function need a ``name`` each.
    """

    def __init__(self, function, name: str = "", signature=_KERNEL) -> None:
        self.function, self.signature = function, signature
        self.name = name or function.__qualname__
        function.__qualname__ = self.name  # see device_of
        self.__doc__ = function.__doc__

    @cached_property
    def compiled(self) -> _Kernel:
        # The attribute keeps the machine code alive as long as its address is in use.
        options = {"nogil": True, "error_model": "numpy"}
        compiled = _Kernel(self.function, self.signature, {}, options)
        compiled._cache = KernelCache(self.function, alone=True)
        compiled.compile()
        return compiled

    @property
    def address(self) -> int:
        with _compile_lock:
            return int(self.compiled.address)  # type: ignore[arg-type]


def host(parallel: bool = False, error_model: str = "python"):
    """Marks a function that Python calls: compiled at first use, and cached on disk."""

    def mark(function):
        compiled = njit(function, nogil=True, parallel=parallel, error_model=error_model)
        compiled._cache = KernelCache(function)
        return compiled

    return mark


@intrinsic
def _as_pointer(typingctx, address):
    def codegen(context, builder, signature, values):
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@device
def array(address, count, dtype):
    """The ``count`` elements of ``dtype`` at ``address`` as a NumPy array (no copy)."""
    return carray(_as_pointer(address), (count,), dtype)


_NO_EXCEPTION, _LOST_EXCEPTION = 0, -1


@intrinsic
def _call(typingctx, address, arguments, program, thread):
    """Calls a kernel; returns what it raised: an address of Numba's, or one of the two above."""

    def codegen(context, builder, signature, values):
        shape = context.call_conv.get_function_type(types.none, [types.int64] * 3)
        kernel = builder.inttoptr(values[0], shape.as_pointer())
        status, _ = context.call_conv.call_function(
            builder, kernel, types.none, [types.int64] * 3, values[1:]
        )
        with builder.if_then(status.is_python_exc, likely=False):  # of Python code, in this thread
            python = context.get_python_api(builder)
            lock = python.gil_ensure()
            python.err_clear()
            python.gil_release(lock)
        number = ir.IntType(64)
        raised = builder.select(
            status.is_user_exc,
            builder.ptrtoint(status.excinfoptr, number),
            number(_LOST_EXCEPTION),
        )
        return builder.select(status.is_error, raised, number(_NO_EXCEPTION))

    return types.int64(*[types.int64] * 4), codegen


@intrinsic
def _raise(typingctx, raised):
    """Raises what ``_call`` returned, as if the function that this stands in had raised it."""

    def codegen(context, builder, signature, values):
        status = Status(
            code=RETCODE_USEREXC, is_ok=None, is_none=None, is_error=None,
            is_stop_iteration=None, is_python_exc=None, is_user_exc=None,
            excinfoptr=builder.inttoptr(values[0], excinfo_ptr_t),
        )  # fmt: skip
        with builder.if_then(builder.icmp_signed("!=", values[0], values[0].type(_NO_EXCEPTION))):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@host()
def _raise_again(raised):
    _raise(raised)


@host()
def _peek_number(address):
    return peek(address, np.int64(0))


@intrinsic
def _take(typingctx, counter):
    """Adds one to the int64 at ``counter`` and returns what it was, atomically."""

    def codegen(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(types.int64), codegen


_LINE = 64  # bytes between counters: a cache line each
_RAISED = 8  # where in a thread's line it puts what a program raised


@host()
def _work(address, arguments, programs, counters, thread, threads):
    """One thread's share of the programs, then what others have not begun of theirs.

    Its share is the same part of the work in every launch, so that a thread mostly reads what it
    wrote itself, and finds it in its core's own cache. Stops at a program that raises: what it
    raised is put behind the thread's counter and returned, so that anything but 0 is a failure.
    """
    for i in range(threads):
        owner = (thread + i) % threads
        first, end = programs * owner // threads, programs * (owner + 1) // threads
        program = first + _take(counters + _LINE * owner)
        while program < end:
            raised = _call(address, arguments, program, thread)
            if raised != _NO_EXCEPTION:
                poke(counters + _LINE * thread + _RAISED, raised)
                return raised
            program = first + _take(counters + _LINE * owner)
    return _NO_EXCEPTION


@host(parallel=True)
def _launch(address, arguments, programs, counters, threads):
    for thread in prange(threads):
        _work(address, arguments, programs, counters, thread, threads)
    raised = _NO_EXCEPTION
    for thread in range(threads):
        raised |= peek(counters + _LINE * thread + _RAISED, raised)
    return raised


STEP = 3  # int64: a kernel's address, that of its arguments, and how many programs there are


@host()
def _work_all(steps, count, counters):
    for number in range(count):
        step, own = steps + 8 * STEP * number, counters + _LINE * number
        address, table = peek(step, np.int64(0)), peek(step + 8, np.int64(0))
        programs = peek(step + 16, np.int64(0))
        if _work(address, table, programs, own, 0, 1) != _NO_EXCEPTION:
            return True
    return False


@host()
def _launch_all(steps, count, counters, threads):
    for number in range(count):
        step, own = steps + 8 * STEP * number, counters + _LINE * threads * number
        address, table = peek(step, np.int64(0)), peek(step + 8, np.int64(0))
        programs = peek(step + 16, np.int64(0))
        if programs == 1:
            raised = _work(address, table, programs, own, 0, 1)
        else:
            raised = _launch(address, table, programs, own, threads)
        if raised != _NO_EXCEPTION:
            return True
    return False


def counters_of(steps: int, team: int) -> int:
    """How many int64, zeros, so many steps count with."""
    return steps * team * _LINE // 8


def run_steps(kernels: Sequence[kernel], steps: int, counters: int, team: int) -> None:
    """Launches one kernel after the other; ``steps`` and ``counters`` are where these stand.

    What a program raises is raised here, with the kernel's name; nothing is launched behind it.
    """
    if team == 1:  # without the pool, which may not have been started
        failed = _work_all(steps, len(kernels), counters)
    else:
        with _pool(team):
            failed = _launch_all(steps, len(kernels), counters, team)
    if failed:
        _raise_of(kernels, counters, team)


def _raise_of(kernels: Sequence[kernel], counters: int, team: int) -> NoReturn:
    """Raises what a program raised, with the kernel's name, from what ``_work`` left behind."""
    places = np.empty(len(kernels) * team, dtype=np.int64)
    for i in range(len(places)):
        places[i] = _peek_number(counters + _LINE * i + _RAISED)
    place = np.flatnonzero(places)[0]
    name = kernels[place // team].name
    if places[place] == _LOST_EXCEPTION:
        raise RuntimeError(f"kernel {name}: an exception of Python code that it calls was lost")
    try:
        _raise_again(places[place])
    except Exception as error:
        error.args = (f"kernel {name}: {str(error) or type(error).__name__}",)
        raise
    raise AssertionError("nothing was raised")


def threads() -> int:
    """How many threads a launch may use here and now: torch's number; one in a forked process."""
    return 1 if _forked else min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


def _threading_layer() -> str:
    """OpenMP; threads of Numba's own where the system has no library of it that Numba can load.

    PyTorch comes with a library for itself, under another name.
    """
    try:
        import numba.np.ufunc.omppool  # noqa: F401
    except ImportError as error:
        warnings.warn(
            f"pointwise: Numba finds no OpenMP ({error}) and takes threads of its own, which are "
            "slower to start; install it (Debian and Ubuntu: libgomp1, Fedora: libgomp, macOS: "
            "libomp)",
            RuntimeWarning,
            stacklevel=2,
        )
        return "workqueue"
    return "omp"


@lru_cache
def _start_pool() -> None:
    """Starts Numba's threads, and leaves torch its own number of them.

    They share one OpenMP, to which Numba says how many threads it wants at most.
    """
    before = torch.get_num_threads()
    if numba.config.THREADING_LAYER == "default":
        numba.config.THREADING_LAYER = _threading_layer()
    _launch_threads()
    torch.set_num_threads(before)


def _pool(team: int):
    """A team of Numba's threads, to be used inside of what is returned: a lock where one is due."""
    _start_pool()
    numba.set_num_threads(team)
    # The one layer that is not thread-safe.
    return _workqueue_lock if numba.config.THREADING_LAYER == "workqueue" else _no_lock


def launch(compiled: kernel, arguments: Arguments | None, programs: int) -> None:
    """Runs ``compiled`` for every program id below ``programs``, on torch's number of threads.

    Every thread has a share of the program ids, and helps others when it is done, so that a slow
    core does less. What a program raises is raised here, with the kernel's name; its results are
    then worth nothing.
    """
    if programs <= 0 or arguments is None:
        return
    if (recording := record.current()) is not None:
        recording.launch(compiled, arguments, programs)
    team = min(threads(), programs)
    counters = numbers("q", bytes(8 * counters_of(1, team)))
    where = (compiled.address, arguments.address, programs, counters.buffer_info()[0])
    if team == 1:
        raised = _work(*where, 0, 1)
    else:
        with _pool(team):
            raised = _launch(*where, team)
    if raised:
        _raise_of([compiled], where[-1], team)


@dataclass
class Launch:
    """A kernel, its arguments, and how many programs: made once, run as often as wanted.

    The result is ``out``. Layouts name their operands alike: the input ``x``, the result ``out``, a
    ``residual``, and ``scratch``, memory that the kernel writes for itself.
    """

    kernel: kernel
    arguments: Arguments | None  # None of a launch without programs
    programs: int
    out: Tensor

    def run(self) -> Tensor:
        launch(self.kernel, self.arguments, self.programs)
        return self.out

    def patch(self, **operands: Tensor | None) -> None:
        """Puts other operands in the place of named ones."""
        if self.arguments is not None:
            self.arguments.patch(**operands)

    def operand(self, name: str) -> Any:
        """The operand of this name; None where there is none."""
        if self.arguments is None or name not in self.arguments.layout.pointers:
            return None
        return self.arguments.get(name)


class Program:
    """Launches one after the other in a single call, which saves what each costs in Python.

    ``tables[i]`` are the arguments of launch i in memory, and may be changed between runs; runs in
    several threads wait for each other.
    """

    def __init__(self, launches: Iterable[Launch]) -> None:
        self.launches = list(launches)  # machine code and operands are to stay
        self.kernels = tuple(one.kernel for one in self.launches)
        self.tables = [
            numbers("q") if one.arguments is None else one.arguments.table for one in self.launches
        ]
        table = [
            entry
            for one, own in zip(self.launches, self.tables, strict=True)
            for entry in (one.kernel.address, own.buffer_info()[0], one.programs)
        ]
        self._steps = numbers("q", table)
        self.lock = threading.Lock()

    def run(self, which: slice | None = None) -> None:
        """Runs all launches, or some; to be called with the ``lock``."""
        team = threads()
        kernels, first = self.kernels, 0
        if which is not None:
            kernels, first = kernels[which], which.indices(len(kernels))[0]
        counters = numbers("q", bytes(8 * counters_of(len(kernels), team)))
        steps = self._steps.buffer_info()[0] + 8 * STEP * first
        run_steps(kernels, steps, counters.buffer_info()[0], team)
