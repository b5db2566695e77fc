"""A grid launch, as on a GPU: one function pointer, called once for every program id.

A kernel is a ``numba.cfunc`` of ``(arguments, program, thread)``, all int64: the address of a table
of int64 (pointers and sizes), which piece of the work to do, and which thread does it (for scratch
memory only: a result must never depend on it). Kernels compile serially, which is quick; only
``_launch`` below pays for Numba's parallel compiler, once.
"""

from __future__ import annotations

import hashlib
import os
import threading
from functools import cached_property, lru_cache
from pathlib import Path

import numba
import numpy as np
import torch  # before Numba's pool starts, so that both bind to one OpenMP runtime
from llvmlite import ir
from numba import carray, njit, prange, types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.runtime import rtsys
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads

import pointwise

if numba.config.THREADING_LAYER == "default":
    numba.config.THREADING_LAYER = "omp"

_KERNEL = ((types.int64, types.int64, types.int64), types.void)
_workqueue_lock = threading.Lock()
_compile_lock = threading.RLock()
_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


# A forked child (a DataLoader worker) inherits an OpenMP runtime whose threads did not come along.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


device = njit(nogil=True, error_model="numpy")
"""Marks a function that kernels call. It is compiled into each of them, and cached with them."""


def device_of(*parts):
    """``device`` for functions that another function makes, which ``parts`` tell apart.

    Machine code is linked by name, also when it comes from the cache: two functions of one name
    would become one.
    """

    def mark(function):
        function.__qualname__ += "_".join(("", *map(str, parts)))
        return device(function)

    return mark


@lru_cache
def _fingerprint() -> str:
    """Of all the package's kernel sources: what a cached kernel has to agree with.

    Numba looks only at the file a kernel stands in, and would go on using machine code from before
    a change in a file that the kernel calls.
    """
    package = Path(pointwise.__file__).parent
    files = sorted(package.glob("conv*.py"))
    for folder in ("engine/cpu", "gathers", "cloud"):
        files += sorted((package / folder).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class _Cache(FunctionCache):
    """Numba's cache of one function, read without what only compiling needs.

    Numba would first load all that it can compile: a third of a second and 28 MB.
    """

    def load_overload(self, sig, target_context):
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class _NamedCache(_Cache):
    """The cache of a function that may be made several times from different parts.

    Numba would tell such functions apart by what they enclose, whose identity changes from process
    to process; a name does not.
    """

    def __init__(self, function, name: str) -> None:
        super().__init__(function)
        self.name = name

    def load_overload(self, sig, target_context):
        found = super().load_overload(sig, target_context)
        if found is not None:
            # What other functions would be compiled with, in a MB or two: nobody calls a kernel.
            found.library._shared_module = None
        return found

    def _index_key(self, sig, codegen):
        return sig, codegen.magic_tuple(), self.name, _fingerprint()


class kernel:
    """Marks ``function(arguments, program, thread)`` for ``launch``.

    It compiles at first use, not at import, and the result is cached on disk. Functions made by
    another function need a ``name`` each.
    """

    def __init__(self, function, name: str = "") -> None:
        self.function = function
        self.name = name or function.__qualname__
        function.__qualname__ = self.name  # see device_of
        self.__doc__ = function.__doc__

    @cached_property
    def compiled(self) -> CFunc:
        # The attribute keeps the machine code alive as long as its address is in use.
        options = {"nogil": True, "error_model": "numpy"}
        compiled = CFunc(self.function, _KERNEL, {}, options)
        compiled._cache = _NamedCache(self.function, self.name)  # type: ignore[attr-defined]
        compiled.compile()
        return compiled

    @property
    def address(self) -> int:
        with _compile_lock:
            return int(self.compiled.address)  # type: ignore[arg-type]


def host(parallel: bool = False):
    """Marks a function that Python calls: compiled at first use, and cached on disk."""

    def mark(function):
        compiled = njit(function, nogil=True, parallel=parallel)
        compiled._cache = _Cache(function)
        return compiled

    return mark


@intrinsic
def slot(typingctx, arguments, index):
    """Entry ``index`` of a kernel's argument table."""

    def codegen(context, builder, signature, values):
        table = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        return builder.load(builder.gep(table, [values[1]]))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _as_pointer(typingctx, address):
    def codegen(context, builder, signature, values):
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@device
def array(address, count, dtype):
    """The ``count`` elements of ``dtype`` at ``address`` as a NumPy array (no copy)."""
    return carray(_as_pointer(address), (count,), dtype)


@intrinsic
def _call(typingctx, address, arguments, program, thread):
    def codegen(context, builder, signature, values):
        i64 = ir.IntType(64)
        shape = ir.FunctionType(ir.VoidType(), [i64, i64, i64])
        builder.call(builder.inttoptr(values[0], shape.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _take(typingctx, counter):
    """Adds one to the int64 at ``counter`` and returns what it was, atomically."""

    def codegen(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(types.int64), codegen


_LINE = 64  # bytes between counters: a cache line each


@host()
def _work(address, arguments, programs, counters, thread, threads):
    """One thread's share of the programs, then what others have not begun of theirs.

    Its share is the same part of the work in every launch, so that a thread mostly reads what it
    wrote itself, and finds it in its core's own cache.
    """
    for i in range(threads):
        owner = (thread + i) % threads
        first, end = programs * owner // threads, programs * (owner + 1) // threads
        program = first + _take(counters + _LINE * owner)
        while program < end:
            _call(address, arguments, program, thread)
            program = first + _take(counters + _LINE * owner)


@host(parallel=True)
def _launch(address, arguments, programs, counters, threads):
    for thread in prange(threads):
        _work(address, arguments, programs, counters, thread, threads)


@host()
def _work_all(addresses, tables, programs, counters):
    for step in range(len(addresses)):
        _work(addresses[step], tables[step], programs[step], counters + _LINE * step, 0, 1)


@host()
def _launch_all(addresses, tables, programs, counters, threads):
    for step in range(len(addresses)):
        own = counters + _LINE * threads * step
        if programs[step] == 1:
            _work(addresses[step], tables[step], programs[step], own, 0, 1)
        else:
            _launch(addresses[step], tables[step], programs[step], own, threads)


def threads() -> int:
    """How many threads a launch may use here and now: torch's number; one in a forked process."""
    return 1 if _forked else min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


@lru_cache
def _start_pool() -> None:
    """Starts Numba's threads, and leaves torch its own number of them.

    They share one OpenMP, to which Numba says how many threads it wants at most.
    """
    before = torch.get_num_threads()
    _launch_threads()
    torch.set_num_threads(before)


def launch(compiled, arguments, programs: int) -> None:
    """Runs ``compiled`` for every program id below ``programs``, on torch's number of threads.

    ``arguments`` is a sequence of integers (addresses and sizes). Every thread has a share of the
    program ids, and helps others when it is done, so that a slow core does less.
    """
    if programs <= 0:
        return
    table = np.array(arguments, dtype=np.int64)
    team = min(threads(), programs)
    counters = np.zeros((team, _LINE // 8), dtype=np.int64)
    where = (compiled.address, table.ctypes.data, programs, counters.ctypes.data)
    if team == 1:
        _work(*where, 0, 1)
        return
    _start_pool()
    numba.set_num_threads(team)
    if numba.config.THREADING_LAYER == "workqueue":  # the one layer that is not thread-safe
        with _workqueue_lock:
            _launch(*where, team)
    else:
        _launch(*where, team)


class Program:
    """Launches one after the other in a single call, which saves what each costs in Python.

    Made of (kernel, arguments, programs). ``tables[i]`` are the arguments of launch i and may be
    changed between runs; runs in several threads wait for each other.
    """

    def __init__(self, launches) -> None:
        compiled, arguments, programs = zip(*launches, strict=True)
        self.kernels = compiled  # their machine code is to stay
        self.tables = [np.array(table, dtype=np.int64) for table in arguments]
        self._addresses = np.array([kernel.address for kernel in compiled], dtype=np.int64)
        self._places = np.array([table.ctypes.data for table in self.tables], dtype=np.int64)
        self._programs = np.array(programs, dtype=np.int64)
        self._counters = np.zeros(0, dtype=np.int64)
        self.lock = threading.Lock()

    def run(self, which: slice | None = None) -> None:
        """Runs all launches, or some; to be called with the ``lock``."""
        team = threads()
        needed = len(self._programs) * team * _LINE // 8
        if len(self._counters) < needed:
            self._counters = np.zeros(needed, dtype=np.int64)
        self._counters.fill(0)
        given: tuple = (self._addresses, self._places, self._programs)
        if which is not None:
            given = tuple(part[which] for part in given)
        given = (*given, self._counters.ctypes.data)
        if team == 1:  # without the pool, which may not have been started
            _work_all(*given)
            return
        _start_pool()
        numba.set_num_threads(team)
        if numba.config.THREADING_LAYER == "workqueue":
            with _workqueue_lock:
                _launch_all(*given, team)
        else:
            _launch_all(*given, team)
