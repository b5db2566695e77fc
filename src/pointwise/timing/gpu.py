"""Times on a GPU, by its own clock: CUDA events around what is queued.

A GPU computes while Python goes on. So that what is timed is its work and not Python's, it is given
something to wait for first, and all runs of a turn are queued behind that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pointwise.timing.times import Times

BURST = 10  # runs of one turn
_WAIT = 2_000_000  # cycles of the GPU, about a millisecond


def chosen(caller: str, name: str) -> torch.device:
    """A CUDA device by its name, ``cuda`` or ``cuda:1``, which becomes the current one.

    Raises ValueError where there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{caller}: --device is cpu, cuda or cuda:1, got {name!r}") from None
    if device.type != "cuda":
        raise ValueError(f"{caller}: --device is cpu, cuda or cuda:1, got {name!r}")
    count = torch.cuda.device_count()
    if not count:
        raise ValueError(
            f"{caller}: --device {name}, and PyTorch {torch.__version__} finds no CUDA device here;"
            " leave --device out for the CPU"
        )
    if device.index is not None and device.index >= count:
        raise ValueError(f"{caller}: --device {name}, and there are {count}, from cuda:0 on")
    index = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def name_of(device: torch.device) -> str:
    """What a GPU calls itself."""
    return torch.cuda.get_device_name(device)


def in_turns(
    runs: Sequence[Callable[[], object]], rounds: int, burst: int = BURST, hurried: bool = True
) -> list[Times]:
    """Milliseconds of a run of each, for each round; who is first in a round changes too.

    ``hurried`` runs wait for nothing but the GPU; others are timed as a user waits for them, with
    what Python takes.
    """
    for run in runs:
        run()  # compiles what has to be
    taken: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        for place in range(len(runs)):
            which = (number + place) % len(runs)
            taken[which].append(milliseconds(runs[which], burst, hurried))
    return [Times(tuple(each)) for each in taken]


def milliseconds(run: Callable[[], object], repeats: int = 1, hurried: bool = True) -> float:
    """Of one of some runs that are queued one behind the other, on the current device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    if hurried:
        torch.cuda._sleep(_WAIT)
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """10⁹ operations per second of products of matrices, and 10⁹ bytes per second of a copy."""
    size, count = 8192, 2**28
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    product = min(milliseconds(lambda: a @ b, 3) for _ in range(5))
    one, other = (torch.ones(count, device=device, dtype=torch.float32) for _ in range(2))
    copy = min(milliseconds(lambda: one.copy_(other), 3) for _ in range(5))
    return 2 * size**3 / (1e6 * product), 2 * 4 * count / (1e6 * copy)
