"""Compiled functions on disk: read only if whole, ours, and of this machine and these sources.

What is read here is executed: machine code, and a pickle around it. So a file is believed only if
its digest is right and nobody else can have written it. Any other is passed over, and replaced by
what is then compiled. A cache that cannot be written costs every process half a minute: one warning
says so.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import stat
import warnings
from functools import cached_property, lru_cache
from pathlib import Path

import llvmlite
import numba
from numba.core import caching
from numba.core.caching import CompileResultCacheImpl
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from pointwise.atomic import replacing
from pointwise.engine.cpu.isa import ISA

# Says at level INFO what is compiled: silent, unless a program (such as our own command line) asks.
LOG = logging.getLogger("pointwise.kernels")
_MAGIC = b"pointwise kernel 1\n"
_DIGEST = hashlib.sha256().digest_size


class _UserWide(caching.UserWideCacheLocator):
    """The user's own cache folder, where there is a user: else Numba makes a folder named ``~``."""

    @classmethod
    def from_function(cls, py_func, py_file):
        if not os.path.isabs(os.path.expanduser("~")):
            return None
        return super().from_function(py_func, py_file)


class _Place(CompileResultCacheImpl):
    """Where Numba caches a function: NUMBA_CACHE_DIR, beside the source, or the user's cache."""

    _locator_classes = [  # noqa: RUF012
        _UserWide if each is caching.UserWideCacheLocator else each
        for each in CompileResultCacheImpl._locator_classes
    ]


@lru_cache
def fingerprint() -> str:
    """Of all sources of the engine and of what it reads: what a cached kernel has to agree with.

    Numba looks only at the file a kernel stands in, and would go on using machine code from before
    a change in a file that the kernel calls. A kernel outside of the engine (of ``rooms``, say) may
    call what stands in its own file, or in the engine, and nothing else: a test holds that. Kernels
    for GPUs are Triton's to compile, and nothing here calls them.
    """
    package = Path(__file__).parents[2]
    files = [file for room in ("convolution", "engine") for file in (package / room).rglob("*.py")]
    files = sorted(set(files) - set((package / "engine" / "gpu").rglob("*.py")))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class KernelCache(caching._Cache):
    """The cache of one function under its qualified name, which must be its own (see ``kernel``).

    ``alone`` says that no other function will be compiled with what is read. Numba would read the
    pickles and the machine code of anybody, tell functions of one factory apart by the identity of
    what they enclose, and first load all that it can compile: a third of a second and 28 MB.
    """

    def __init__(self, function, alone: bool = False) -> None:
        self._function, self._alone = function, alone

    @cached_property
    def _place(self) -> _Place | None:
        try:
            return _Place(self._function)
        except (RuntimeError, OSError):  # no folder that can be written to
            return None

    @property
    def cache_path(self) -> str | None:
        return self._place and self._place.locator.get_cache_path()

    def load_overload(self, sig, target_context):
        """What was compiled for ``sig``, or None where there is nothing to be believed."""
        found = self._load(sig, target_context)
        if found is None:  # Numba compiles it next
            LOG.info("compiling kernels for %s: %s", ISA.title, self._function.__qualname__)
        return found

    def _load(self, sig, target_context):
        rtsys.initialize(target_context)
        if self._place is None:
            return None
        path, key = self._file(sig, target_context.codegen())
        try:
            payload = _read(path, key, _owner(self._function.__code__.co_filename))
            found = payload and self._place.rebuild(target_context, pickle.loads(payload))
        except Exception:  # whole, and still not to be used: compiled anew like what is damaged
            return None
        if found and self._alone:
            # What other functions would be compiled with, in a MB or two: nobody calls a kernel.
            found.library._shared_module = None
        return found

    def save_overload(self, sig, data) -> None:
        """Keeps what was compiled, or warns once that it cannot be kept."""
        LOG.info("compiled kernels for %s: %s", ISA.title, self._function.__qualname__)
        if self._place is None:
            _warn(f"there is no folder for {Path(self._function.__code__.co_filename).name}")
            return
        if not self._place.check_cachable(data):
            return
        path, key = self._file(sig, data.codegen)
        payload = dumps(self._place.reduce(data))
        try:
            path.unlink(missing_ok=True)  # whose permissions the new file would take over
            with replacing(path) as part, open(part, "wb", opener=_for_me_to_write) as file:
                file.writelines((_MAGIC, key, hashlib.sha256(payload).digest(), payload))
        except OSError as error:
            _warn(f"{path.parent}: {error.strerror or error}")

    def _file(self, sig, codegen) -> tuple[Path, bytes]:
        """The file for this machine and this Numba, and the digest of all it must agree with."""
        assert self._place is not None
        machine = (str(sig), numba.__version__, llvmlite.__version__, ISA, codegen.magic_tuple())
        kind = hashlib.sha256(repr(machine).encode()).hexdigest()[:16]
        sources = (self._place.locator.get_source_stamp(), fingerprint())
        key = repr((machine, self._function.__qualname__, sources)).encode()
        name = f"{self._place.filename_base}.{kind}.nbc"
        return Path(self._place.locator.get_cache_path(), name), hashlib.sha256(key).digest()

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...


def _for_me_to_write(path, flags: int) -> int:
    return os.open(path, flags, 0o644)


def _owner(source: str) -> int:
    """Who can change the source anyway; root, where it is no file (a cell of a notebook)."""
    return os.stat(source).st_uid if os.path.exists(source) else 0


def _read(path: Path, key: bytes, source_owner: int) -> bytes | None:
    """What a file holds behind its digests; None where one is wrong, or others may have written."""
    try:
        with open(path, "rb") as file:
            if not _is_trusted(os.fstat(file.fileno()), source_owner):
                return None
            content = file.read()
    except OSError:
        return None
    head = len(_MAGIC) + 2 * _DIGEST
    payload = memoryview(content)[head:]
    if content[:head] != _MAGIC + key + hashlib.sha256(payload).digest():
        return None
    return payload  # type: ignore[return-value]


def _is_trusted(status: os.stat_result, source_owner: int) -> bool:
    """Whether a file is of the user, of root, or of who owns the source that it was made from."""
    if not hasattr(os, "getuid"):
        return True
    mine = status.st_uid in (os.getuid(), 0, source_owner)
    return mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


_warned = False


def _warn(why: str) -> None:
    """Says, once a process, that the next one will have to compile again."""
    global _warned
    if _warned:
        return
    _warned = True
    warnings.warn(
        f"pointwise: compiled kernels cannot be kept ({why}), so that every process takes half a "
        "minute to compile them; set NUMBA_CACHE_DIR to a folder that you can write to",
        RuntimeWarning,
        stacklevel=2,
    )
