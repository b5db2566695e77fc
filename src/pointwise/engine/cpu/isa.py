"""The instructions that kernels are compiled to: the best that the machine has, or fewer.

``POINTWISE_ISA=avx512|avx2|baseline`` chooses, before the first import. Fewer than the machine has
serve comparisons and tests: then LLVM does not know the others either, in kernels and in whatever
else Numba compiles in the process. ``baseline`` is what every processor of its kind has: SSE2 on
x86, NEON on Arm.
"""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

import llvmlite.binding as llvm
import numba
from numba.core.registry import cpu_target

VARIABLE = "POINTWISE_ISA"


class Isa(NamedTuple):
    """A set of instructions."""

    name: str  # for POINTWISE_ISA
    title: str
    register_bytes: int
    registers: int
    needs: tuple[str, ...] = ()  # LLVM's names of what the processor must have
    leaves: tuple[str, ...] = ()  # what LLVM is not to use, by how the names begin


_AVX512 = Isa("avx512", "AVX-512", 64, 32, ("avx512f", "avx512dq", "avx512bw", "avx512vl", "fma"))
_AVX2 = Isa("avx2", "AVX2", 32, 16, ("avx2", "fma"), ("avx512", "avx10", "evex", "amx"))
_SSE = Isa(
    "baseline", "SSE2", 16, 16, (),
    (*_AVX2.leaves, "avx", "fma", "f16c", "xop", "vaes", "vpcl", "sse3", "ssse3", "sse4"),
)  # fmt: skip
_NEON = Isa("baseline", "NEON", 16, 32)
_ARM = platform.machine().lower() in ("aarch64", "arm64")
_ALL = (_NEON,) if _ARM else (_AVX512, _AVX2, _SSE)  # the best first


def _features() -> dict[str, bool]:
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on some platforms
        return {}


def processor() -> str:
    """LLVM's name of the processor, such as ``neoverse-n1``; empty where LLVM knows none."""
    name = str(llvm.get_host_cpu_name())
    return "" if name == "generic" else name


def available() -> list[Isa]:
    """What this machine has, the best first."""
    features = _features()
    return [isa for isa in _ALL if all(features.get(name) for name in isa.needs)]


def chosen(wanted: str | None) -> Isa:
    """The one that is ``wanted`` by name; the best without a name. ValueError if there is none."""
    found = {isa.name: isa for isa in available()}
    if not wanted:
        return next(iter(found.values()))
    if wanted not in found:
        names = dict.fromkeys([isa.name for isa in (_AVX512, _AVX2, _SSE)])
        why = "this processor does not have it" if wanted in names else "there is no such one"
        raise ValueError(
            f"{VARIABLE}={wanted}: {why}; here it can be {' or '.join(found)}, or unset for the "
            "best"
        )
    return found[wanted]


def _restrict(isa: Isa) -> None:
    """Keeps LLVM from all instructions beyond those of ``isa``."""
    features = _features()
    left = {name for name in features if name.startswith(isa.leaves)} if isa.leaves else set()
    if not any(features[name] for name in left):
        return
    if "_toplevel_target_context" in vars(cpu_target):  # made when first asked for
        raise ImportError(
            f"{VARIABLE}={isa.name} comes too late: Numba has compiled for this machine already; "
            "import pointwise before anything that compiles with Numba"
        )
    kept = {name: given and name not in left for name, given in features.items()}
    numba.config.CPU_FEATURES = ",".join(
        ("+" if given else "-") + name for name, given in sorted(kept.items())
    )


ISA = chosen(os.environ.get(VARIABLE))
"""The one in use."""

_restrict(ISA)


def is_less_than_best() -> bool:
    """Whether the processor has more than ``ISA``."""
    return available()[0] != ISA


def has(*features: str) -> bool:
    """Whether the processor has these, by LLVM's names, and ``ISA`` leaves them to be used."""
    given = _features()
    return all(given.get(name) and not name.startswith(ISA.leaves or "?") for name in features)
