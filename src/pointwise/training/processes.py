"""Training on several processes: which one this is, what they decide together, how they start.

Started by ``--devices``, by ``torchrun`` or by SLURM's ``srun``, every process runs the same
command and finds its place in the environment. The first one writes, prints and decides; a process
that is alone is the first of one, and what is here does nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import distributed, nn

from pointwise import interruption

T = TypeVar("T")

PATIENCE = 3.0  # seconds that processes have to end by themselves, once one has failed
GRACE = 30.0  # and to end after they were asked to
LONGEST_WAIT = timedelta(hours=2)  # of one process for another, which may be reading its data


def launched() -> bool:
    """Whether something else has started this process as one of several."""
    return all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))


def rank() -> int:
    """The number of this process, 0 for the first one."""
    return distributed.get_rank() if _connected() else 0


def count() -> int:
    """How many processes train together, on all machines."""
    return distributed.get_world_size() if _connected() else 1


def here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if _connected() else 1


def here_share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of what those on this machine do once for all of them."""
    return items[int(os.environ["LOCAL_RANK"]) :: here()] if _connected() else items


def _connected() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def take_place(devices: int | None) -> None:
    """Connects with the other processes, where a launcher has started several.

    Raises ValueError where it has started another number here than ``devices``.
    """
    _read_slurm()
    if not launched():
        return
    found = int(os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if devices not in (None, found):
        raise ValueError(
            f"train: --devices is {devices}, but {found} processes were started on this machine;"
            " leave out --devices"
        )
    if int(os.environ["WORLD_SIZE"]) == 1 or _connected():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"  # what is decided together is on the CPU
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)


def _read_slurm() -> None:
    """Says in torchrun's words what ``srun`` says in its own."""
    # Of this step: in a batch script without srun, the job has several tasks and only one runs.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if launched() or tasks == 1:
        return
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    step, nodes = os.environ, int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
    if tasks % nodes:
        raise ValueError(
            f"train: srun started {tasks} processes on {nodes} machines; give --ntasks-per-node"
        )
    os.environ.update(
        RANK=step["SLURM_PROCID"],
        LOCAL_RANK=step["SLURM_LOCALID"],
        GROUP_RANK=step["SLURM_NODEID"],
        WORLD_SIZE=str(tasks),
        LOCAL_WORLD_SIZE=str(tasks // nodes),
    )
    first_node = SLURMEnvironment.resolve_root_node_address(step["SLURM_STEP_NODELIST"])
    os.environ.setdefault("MASTER_ADDR", first_node)
    os.environ.setdefault("MASTER_PORT", str(15000 + int(step["SLURM_JOB_ID"][-4:])))


def leave() -> None:
    """Ends the connection with the other processes."""
    if _connected():
        distributed.destroy_process_group()


def together(call: Callable[[], T]) -> T:
    """Calls ``call`` in each process; where one raises ValueError or OSError, all end with that."""
    result, error = _tried(call)
    errors: list[Exception | None] = [error]
    if _connected():
        errors = [None] * count()
        distributed.all_gather_object(errors, error)
    for found in errors:
        if found is not None:
            say_once()
            raise found
    return result  # type: ignore[return-value]


def first(call: Callable[[], T]) -> T:
    """What ``call`` returns in the first process, or the error that it raises there, for all."""
    outcome = [_tried(call) if rank() == 0 else None]
    if _connected():
        distributed.broadcast_object_list(outcome, src=0)
    assert outcome[0] is not None
    result, error = outcome[0]
    if error is not None:
        say_once()
        raise error
    return result  # type: ignore[return-value]


def _tried(call: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return call(), None
    except (ValueError, OSError, ImportError) as error:
        if not _connected():
            raise
        return None, error


def say_once() -> None:
    """Before an error that all processes have: the first one says it, the others end here."""
    if rank() > 0:
        time.sleep(1)  # a launcher that sees one process end stops the rest: this is to be read
        raise SystemExit(1)


def greatest(*values: float) -> list[float]:
    """The largest of each value over all processes, so that they all go on with the same."""
    if not _connected():
        return list(values)
    shared = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return shared.tolist()


def total(matrix: np.ndarray) -> np.ndarray:
    """The sum of an integer array over all processes."""
    if not _connected():
        return matrix
    shared = torch.from_numpy(matrix.copy())
    distributed.all_reduce(shared)
    return shared.numpy()


@torch.no_grad()
def average_buffers(network: nn.Module) -> None:
    """Gives the network the mean of all processes' buffers: each has seen a part of the data."""
    if not _connected():
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.float().flatten() for buffer in buffers])
    distributed.all_reduce(flat)
    flat /= count()
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


@torch.no_grad()
def copy_first(network: nn.Module) -> None:
    """Gives the network, which is on the CPU, the weights and buffers that the first one has."""
    if _connected():
        for tensor in network.state_dict().values():
            shared = tensor.contiguous()
            distributed.broadcast(shared, src=0)
            tensor.copy_(shared)


def lost_another(error: BaseException) -> bool:
    """Whether this is how a process learns that another one has ended."""
    said = str(error).lower()
    words = ("closed by peer", "reset by peer", "gloo", "nccl", "broken pipe", "tcpstore")
    return count() > 1 and isinstance(error, RuntimeError) and any(word in said for word in words)


def launch(processes: int) -> int:
    """Runs this command in so many processes on this machine; returns the exit code of the whole.

    They share the cores. When one fails, the others are ended; Ctrl-C and SIGTERM reach them all.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "OMP_NUM_THREADS": str(max(1, _cores() // processes)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # remarks on how the processes are connected
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "POINTWISE_PARENT": str(os.getpid()),
    }
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # nothing leaves this machine
    # The path as it is here: an entry point, ``python -m`` and a debugger each have another one.
    code = f"import sys; sys.path[:] = {sys.path!r}; from pointwise.cli import main; main()"
    command = [sys.executable, "-c", code, *sys.argv[1:]]
    children: list[subprocess.Popen] = []
    with _forwarded(children):
        for number in range(processes):
            own = {"RANK": str(number), "LOCAL_RANK": str(number)}
            # In a session of their own, so that Ctrl-C reaches them once: through here.
            children.append(
                subprocess.Popen(command, env=environment | own, start_new_session=True)
            )
        return _outcome(children)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _forwarded(children: list[subprocess.Popen]):
    """Sends what is to end this process on to the children; none is left behind."""

    def send(number: int, frame: object) -> None:
        interruption.note(number)
        for child in children:
            child.send_signal(number)

    stopping = [signal.SIGINT, *interruption.SIGNALS]
    stopping = [number for number in stopping if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, send) for number in stopping}
    try:
        yield
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(children: list[subprocess.Popen]) -> int:
    """Waits for all; once one has failed, the rest are asked to end, and have ``GRACE`` for it."""
    failed: int | None = None
    since, asked = 0.0, False
    while any(child.poll() is None for child in children):
        if failed is None:
            failed = next((c.returncode for c in children if c.returncode), None)
            since = time.monotonic()
        elif time.monotonic() - since > GRACE:
            break
        elif not asked and time.monotonic() - since > PATIENCE:
            asked = True
            for child in children:
                child.terminate()
        time.sleep(0.1)
    if failed is None:
        failed = next((c.returncode for c in children if c.returncode), 0)
    return failed if failed >= 0 else 128 - failed


def watch_parent() -> None:
    """Ends this process soon after the one that ``launch`` ran in has gone, however it went."""
    parent = os.environ.get("POINTWISE_PARENT")
    if parent is None:
        return
    from threading import Thread

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
