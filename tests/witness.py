"""The witness: what every operator, loop, layer, network and accelerated model gives, bit for bit.

A rebuild is to change no result. Before a step of it, and after,

    PYTHONPATH=src python tests/witness.py digests.json
    PYTHONPATH=src python tests/witness.py new.json --against digests.json
    python tests/witness.py --compare digests.json new.json

say which results differ in any bit, which are missing and which are new, and what takes more
launches than before; the exit status is 1 if anything does. Both files have to come from the same
machine and the same PyTorch. Only public names are used, so that one witness serves every checkout
(``PYTHONPATH`` says which).

Everything runs on one thread and on two, and must agree (but for ``PER_TEAM``). Where the machine
has no AVX512-VNNI, the instructions that kernels of bytes need are written in others, so that int8
runs as kernels all the same (``--no-emulation`` leaves them). ``--only PATTERN`` (a regular
expression) takes some entries, ``--list`` names them, ``--coverage`` names the kernels that none of
them launches. All of it takes some minutes, and as many more where kernels have to be compiled.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import witness_engine
from torch import Tensor

PARTS = ("witness_images", "witness_clouds", "witness_models")
PER_TEAM = r"^calls$|, partly by PyTorch$"
"""Results that may depend on the number of threads: which loops a graph is cut into, and what
PyTorch's own norms and linear layers add up."""
ON_BOTH_TEAMS = r"^(accelerated|int8|compiled)"
"""Entries that see to both numbers of threads themselves: models are slow to trace."""
Record = dict[str, Any]
"""``digests`` by the name of the result, and ``launches``."""


# --- digests --------------------------------------------------------------------------------------


def digest(found: Any) -> str:
    """Of all that an entry gives: types, shapes, channels_last or not, and every bit.

    All NaN are one: which bits they have depends on the order of a sum's operands alone.
    """
    state = hashlib.sha256()
    _feed(state, found)
    return state.hexdigest()[:16]


def _feed(state: Any, found: Any) -> None:
    if isinstance(found, Tensor):
        x = found.detach()
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        state.update(f"{x.dtype} {tuple(x.shape)} {last} ".encode())
        if x.is_floating_point():
            x = x.masked_fill(x.isnan(), torch.nan)
        if x.dtype == torch.bfloat16:  # which NumPy does not know
            x = x.contiguous().view(torch.int16)
        state.update(x.numpy().tobytes())
    elif isinstance(found, Mapping):
        for key in sorted(found):
            state.update(f"{key}: ".encode())
            _feed(state, found[key])
    elif isinstance(found, (list, tuple)):
        state.update(f"{len(found)} of ".encode())
        for part in found:
            _feed(state, part)
    else:
        state.update(f"{found!r} ".encode())


def digests(found: Any) -> dict[str, str]:
    """One for each named result; a string stands for itself."""
    named = found if isinstance(found, Mapping) else {"result": found}
    return {k: v if isinstance(v, str) else digest(v) for k, v in named.items()}


# --- running --------------------------------------------------------------------------------------


def entries(only: str = "") -> dict[str, Callable[[], Any]]:
    """All entries whose name has the pattern, each with its own random numbers."""
    found: dict[str, Callable[[], Any]] = {}
    for part in PARTS:
        for name, run in importlib.import_module(part).entries():
            assert name not in found, name
            if re.search(only, name):
                found[name] = partial(_drawn, run, name)
    return found


def _drawn(run: Callable[[Any], Any], name: str) -> Any:
    from witness_inputs import Draw

    return run(Draw(name))


def record(
    run: Callable[[], Any], launches: witness_engine.Launches, teams: Sequence[int] = (2, 1)
) -> Record:
    """What an entry gives on the first number of threads, and how the last one differs."""
    found: list[dict[str, str]] = []
    before = launches.total
    for threads in teams:
        torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(digests(run()))
        except Exception as error:
            found.append({"raises": f"{type(error).__name__}: {error}"})
            traceback.print_exc()
        if threads == teams[0]:
            after = launches.total
    first, last = found[0], found[-1]
    differ = sorted(
        key
        for key in {*first, *last}
        if first.get(key) != last.get(key) and not re.search(PER_TEAM, key)
    )
    return {"digests": first, "launches": after - before, "threads differ": differ}


def run_all(chosen: Mapping[str, Callable[[], Any]], launches: Any) -> dict[str, Record]:
    records = {}
    for number, (name, run) in enumerate(chosen.items(), 1):
        start = time.perf_counter()
        records[name] = found = record(
            run, launches, (2,) if re.match(ON_BOTH_TEAMS, name) else (2, 1)
        )
        took = time.perf_counter() - start
        if took > 3 or number % 50 == 0:
            print(f"{number:4} of {len(chosen)}  {took:5.1f} s  {name}", flush=True)
        for key in found["threads differ"]:
            print(f"THREADS DIFFER  {name}: {key}", flush=True)
        if "raises" in found["digests"]:
            print(f"RAISES  {name}: {found['digests']['raises']}", flush=True)
    return records


# --- comparing ------------------------------------------------------------------------------------


def compare(old: Mapping[str, Record], new: Mapping[str, Record]) -> list[str]:
    """What is not as it was, in words."""
    lines = [f"missing   {name}" for name in old if name not in new]
    lines += [f"new       {name}" for name in new if name not in old]
    for name in old:
        if name not in new:
            continue
        before, after = old[name], new[name]
        one, other = before["digests"], after["digests"]
        for key in dict.fromkeys((*one, *other)):
            if one.get(key) != other.get(key):
                lines.append(f"differs   {name}: {key}, {one.get(key)} → {other.get(key)}")
        if after["launches"] > before["launches"]:
            lines.append(f"launches  {name}: {before['launches']} → {after['launches']}")
    return lines


def fewer(old: Mapping[str, Record], new: Mapping[str, Record]) -> int:
    """In how many entries launches were saved."""
    return sum(new[n]["launches"] < old[n]["launches"] for n in old if n in new)


def report(old: Mapping[str, Record], new: Mapping[str, Record]) -> int:
    """Prints the comparison; returns the exit status."""
    lines = compare(old, new)
    print("\n".join(lines))
    results = sum(len(found["digests"]) for found in new.values())
    print(
        f"{len(new)} entries, {results} results: {len(lines)} differences; "
        f"fewer launches in {fewer(old, new)}"
    )
    return 1 if lines else 0


# --- the command ----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, help="the file to write")
    parser.add_argument("--against", type=Path, help="a file from before")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    parser.add_argument("--only", default="", metavar="PATTERN")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--no-emulation", action="store_true")
    given = parser.parse_args(arguments)
    if given.compare:
        return report(*(json.loads(file.read_text()) for file in given.compare))
    emulate = not given.no_emulation and not witness_engine.has_vnni()
    if emulate:
        witness_engine.emulate()
    launches = witness_engine.Launches()
    launches.count()
    chosen = entries(given.only)
    if given.list:
        print("\n".join(chosen))
        return 0
    start = time.perf_counter()
    records = run_all(chosen, launches)
    print(f"{len(records)} entries in {time.perf_counter() - start:.0f} s", flush=True)
    if given.out:
        given.out.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    if given.coverage:
        idle = sorted(witness_engine.kernel_names() - set(launches.kernels))
        print(f"{len(idle)} kernels that no entry launches: {', '.join(idle)}")
    wrong = any(r["threads differ"] or "raises" in r["digests"] for r in records.values())
    status = 1 if wrong else 0
    if given.against:
        old = json.loads(given.against.read_text())
        status |= report({k: v for k, v in old.items() if re.search(given.only, k)}, records)
    return status


if __name__ == "__main__":
    sys.exit(main())
