"""The grid launch: every program once, on any number of threads, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pointwise.cloud.point_cloud import PointCloud
from pointwise.engine.cpu import launch as engine
from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Layout
from pointwise.layers import CellConv

DONE = Layout("Done", "*done *by size patience")
SPIN = Layout("Spin", "*total times")


@kernel
def _count(arguments, program, thread):
    """Adds one for this program, and notes the thread."""
    own = DONE(arguments)
    array(own.done, own.size, np.int64)[program] += 1
    array(own.by, own.size, np.int64)[program] = thread


@kernel
def _spin(arguments, program, thread):
    """Keeps a thread busy."""
    own = SPIN(arguments)
    total = array(own.total, 1, np.float64)
    for i in range(own.times):
        total[0] += np.sqrt(total[0] + i)


@kernel
def _wait(arguments, program, thread):
    """The first program waits until all others are done, but not for ever."""
    own = DONE(arguments)
    done, by = array(own.done, own.size, np.int64), array(own.by, own.size, np.int64)
    left = own.patience
    while program == 0 and left > 0 and done.sum() < own.size - 1:
        by[0] = left
        left -= 1
    by[program] = thread
    done[program] = 1


@pytest.mark.parametrize("team", [1, 2, 3])
@pytest.mark.parametrize("programs", [0, 1, 2, 3, 1000])
def test_every_program_runs_once(programs, team, threads):
    threads(team)
    done, by = np.zeros(1000, np.int64), np.full(1000, -1)
    launch(_count, DONE(done=done, by=by, size=1000, patience=0), programs)
    assert (done[:programs] == 1).all()
    assert (done[programs:] == 0).all()
    assert (by[:programs] >= 0).all()
    assert (by[:programs] < min(team, max(1, programs))).all()


def test_a_thread_that_is_done_helps_another(threads):
    """One is kept busy by the first program, of thread 0's share; the other does the rest of it.

    (That may be thread 0 itself, where it came so late that the other one had begun to help.)
    """
    threads(2)
    done, by = np.zeros(50, np.int64), np.full(50, -1)
    launch(_wait, DONE(done=done, by=by, size=50, patience=2_000_000_000), 50)
    assert (done == 1).all()
    assert (by[1:25] == 1 - by[0]).all()


def test_threads_follow_torch(threads):
    for count in (1, 2, 3):
        threads(count)
        assert engine.threads() == count


def _seconds(programs: int, size: int) -> float:
    total = np.ones(1)
    begin = time.perf_counter()
    launch(_spin, SPIN(total=total, times=size), programs)
    return time.perf_counter() - begin


@pytest.mark.parametrize("team", [1, 2])
def test_other_python_threads_run_meanwhile(team, threads):
    threads(team)
    size = 20_000_000  # tens of milliseconds at the least
    _seconds(2, 1)
    seen = []
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            seen.append(time.perf_counter())
            time.sleep(0.001)

    ticking = threading.Thread(target=tick)
    ticking.start()
    begin = time.perf_counter()
    _seconds(2, size)
    end = time.perf_counter()
    stop.set()
    ticking.join()
    middle = [t for t in seen if begin + 0.2 * (end - begin) < t < end - 0.2 * (end - begin)]
    assert len(middle) >= 3, f"{len(middle)} ticks of 1 ms in {0.6 * (end - begin):.3f} s"


def _convolve() -> torch.Tensor:
    torch.manual_seed(0)
    points, features = torch.rand(300, 3), torch.rand(300, 5)
    conv = CellConv(5, 9, cell_size=0.1)
    out = conv(features.requires_grad_(), PointCloud(points))
    out.square().sum().backward()
    assert features.grad is not None
    assert conv.weight.grad is not None
    return torch.cat([out.flatten(), features.grad.flatten(), conv.weight.grad.flatten()]).detach()


def test_several_python_threads_at_once(threads):
    threads(2)
    torch.manual_seed(0)
    jobs = [(torch.rand(400, 3), torch.rand(400, 7)) for _ in range(6)]
    conv = CellConv(7, 11, cell_size=0.1)

    def work(job):
        points, features = job
        with torch.no_grad():
            return conv(features, PointCloud(points))

    expected = [work(job) for job in jobs]
    results: list = [None] * len(jobs)

    def run(i):
        results[i] = [work(jobs[i]) for _ in range(5)]

    team = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    for wanted, found in zip(expected, results, strict=True):
        assert found is not None
        assert all(torch.equal(wanted, each) for each in found)


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs os.fork")
def test_in_a_forked_process(threads):
    threads(2)
    expected = _convolve()  # the pool is up before the fork
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # a failure here must end the child, never run on into the other tests
        code = 1
        try:
            torch.set_num_threads(1)
            found = _convolve()
            alone = engine.threads() == 1
            code = 0 if alone and torch.equal(found, expected) else 2
        finally:
            os.write(writer, bytes([code]))
            os._exit(code)
    os.close(writer)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the forked process hangs")
        time.sleep(0.01)
    os.close(reader)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


class Clouds(Dataset):
    """Neighbourhoods that are built by whoever loads them."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        points = torch.rand(200, 3, generator=torch.Generator().manual_seed(index))
        return PointCloud(points).neighborhood(0.1).pairs


@pytest.mark.skipif(sys.platform == "win32", reason="needs forked workers")
def test_in_the_workers_of_a_data_loader(threads):
    threads(2)
    expected = [Clouds()[i] for i in range(4)]
    loader = DataLoader(
        Clouds(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    found = list(loader)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


# --- functions made by functions ------------------------------------------------------------------

FACTORY = """
import sys

import numpy as np

from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Layout

ADDED = Layout("Added", "*place times")

def adding(number, mark):
    @mark
    def add(place, times):  # called twice, and too long to be copied into its callers
        for _ in range(times):
            place[0] = place[0] * 3 ^ number
            for bit in range(7):
                place[0] = place[0] * 5 ^ (place[0] >> bit) if place[0] & 8 else place[0] * 7 + bit
                place[0] = place[0] * 3 ^ (place[0] >> 2) if place[0] & 2 else place[0] * 9 - bit
                place[0] = place[0] * 7 ^ (place[0] >> 3) if place[0] & 4 else place[0] * 3 + bit
        place[0] = place[0] * 1000 + number

    return add


def made(number, mark):
    add = adding(number, mark)

    def run(arguments, program, thread):
        own = ADDED(arguments)
        place = array(own.place, 1, np.int64)
        add(place, own.times)
        add(place, own.times)

    return kernel(run, f"made_{number}")


for number in map(int, sys.argv[2:]):
    compiled = made(number, device if sys.argv[1] == "alike" else device_of(number))
    place = np.zeros(1, np.int64)
    launch(compiled, ADDED(place=place, times=0), 1)
    print(place[0], compiled.compiled._cache_hits)
"""


def _in_processes(folder, names: str) -> list[str]:
    """What two functions of one factory do: the first, compiled; in a new process the second,
    compiled, and the first, from the cache."""
    (folder / "factory.py").write_text(FACTORY)
    variables = {**os.environ, "NUMBA_CACHE_DIR": str(folder / names), "OMP_NUM_THREADS": "1"}
    found = []
    for numbers in (["1"], ["20", "1"]):
        command = [sys.executable, "factory.py", names, *numbers]
        done = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found += done.stdout.splitlines()
    return found


@pytest.mark.slow
def test_functions_of_one_factory_stay_two_in_the_cache(tmp_path):
    # Number, and whether it came from the cache. Machine code is linked by name: of two functions
    # of one name, one would run for both.
    assert _in_processes(tmp_path, "apart") == ["1001 0", "20020 0", "1001 1"]


@pytest.mark.rare
def test_functions_of_one_name_would_become_one(tmp_path):
    assert _in_processes(tmp_path, "alike") == ["1001 0", "20020 0", "20020 1"]


READS = """
import sys
import torch
from pointwise.engine.cpu.pack import pack_kernels
torch.set_num_threads(2)
pack_kernels(torch.rand(64, 64, 1, 1), 1)
print("numba.np.linalg" in sys.modules)
"""


@pytest.mark.slow
def test_what_is_cached_is_read_without_what_compiles():
    """Numba would load all it can compile first: a third of a second, and 28 MB."""
    for _ in range(2):  # the first time, it may have to be compiled
        done = subprocess.run([sys.executable, "-c", READS], capture_output=True, text=True,
                              timeout=300, check=True)  # fmt: skip
    assert done.stdout == "False\n"


WITHOUT_OPENMP = """
import sys
import threading
import warnings
sys.modules["numba.np.ufunc.omppool"] = None  # as where its library is missing
import numba
import torch
import pointwise as pw
torch.set_num_threads(2)
x, weight = torch.rand(1, 32, 40, 40), torch.rand(32, 32)
expected = torch.conv2d(x, weight[:, :, None, None])
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    def work():
        for _ in range(20):
            torch.testing.assert_close(pw.pointwise_conv2d(x, weight), expected)
        done.append(True)
    work_in, done = [threading.Thread(target=work) for _ in range(3)], []
    for each in work_in:
        each.start()
    for each in work_in:
        each.join()
said = [str(each.message) for each in seen if "finds no OpenMP" in str(each.message)]
print(len(done), len(said), numba.threading_layer())
"""


@pytest.mark.slow
def test_without_an_openmp_for_numba():
    """A slim image of Python has only PyTorch's own; Numba's threads take one launch at a time."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_OPENMP], capture_output=True, text=True,
                          timeout=300)  # fmt: skip
    assert done.stdout == "3 1 workqueue\n", done.stderr[-2000:]
