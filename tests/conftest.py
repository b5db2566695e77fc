"""What all tests share: the options ``--slow`` and ``--rare``, the ``gpu`` marker, the real data.

Slow are tests that take long, start processes, or run what documents say; CI runs them too.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

# Before Numba starts: results must not depend on the number of threads, also not on more threads
# than a small machine has cores. (pointwise still follows torch.get_num_threads().)
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(4, os.cpu_count() or 1)))
# Threads that wait do not spin: on a machine that is busy otherwise, spinning makes the many small
# launches of these tests thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # Kernels for GPUs are interpreted. Triton asks when PyTorch's compiler, or anybody, imports it.
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("pointwise", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("pointwise")

DATA = Path(__file__).parents[1] / "../shared/data"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--rare", action="store_true", help="also run the tests marked rare")


def pytest_collection_modifyitems(config, items):
    slow = pytest.mark.skip(reason="slow; run with --slow")
    rare = pytest.mark.skip(reason="takes minutes or much memory; run with --rare")
    gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(slow)
        if item.get_closest_marker("rare") and not config.getoption("--rare"):
            item.add_marker(rare)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(gpu)


def pytest_collection_finish(session):
    # Ten thousand tests and their cases live as long as the session does: ``gc.collect``, which
    # tests and timings call, need not go through them each time.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    # What is frozen is never taken apart, and Triton's bindings would list it all as leaked.
    gc.unfreeze()


_THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _threads_of_its_own():
    """Each test begins with the same number of threads, in whatever order tests run."""
    if torch.get_num_threads() != _THREADS:
        torch.set_num_threads(_THREADS)


@pytest.fixture(autouse=True)
def _nothing_prepared():
    """Each test begins without launches that were prepared in another, whatever that replaced."""
    if (replay := sys.modules.get("pointwise.engine.cpu.replay")) is not None:
        replay.forget()


@pytest.fixture(autouse=True)
def _an_idle_machine(request, monkeypatch):
    """No verdict is withheld because other tests run beside this one, unless it wants to know."""
    if "real_load" not in request.keywords:
        from pointwise.timing import Watch, load

        monkeypatch.setattr(load, "_PROBE", 0.0)
        monkeypatch.setattr(Watch, "busy", lambda self, *times: "")


@pytest.fixture
def shared_data():
    """The folder of real files; skips the test where it is missing."""
    if not DATA.is_dir():
        pytest.skip("the real data is not here: ../shared/data")
    return DATA


@pytest.fixture
def threads():
    """Sets torch's number of threads; puts the old one back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def poisoned(monkeypatch):
    """``torch.empty`` full of NaN: an element of an output that nobody writes shows itself."""
    empty = torch.empty

    def full_of_nan(*shape, **options):
        made = empty(*shape, **options)
        if made.dtype.is_floating_point:
            return made.fill_(float("nan"))
        # Scratch memory is bytes; all ones is NaN in every floating type.
        return made.fill_(255) if made.dtype == torch.uint8 else made

    monkeypatch.setattr(torch, "empty", full_of_nan)
