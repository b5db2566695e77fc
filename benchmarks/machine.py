"""What this machine can do: its fused multiply-adds, and the bandwidth of its memory.

The measurements are ``pointwise.costs.machine``; this only prints them.
"""

from __future__ import annotations

import os
from pathlib import Path

from frame import write

from pointwise.costs.machine import better, measured
from pointwise.timing import Watch
from pointwise.timing.load import verdict_of


def main(
    json: Path | None = None, rounds: int = 3, quick: bool = False, only: str | None = None
) -> None:
    """Prints what the machine can do, the best of ``rounds`` measurements."""
    if rounds < 1:
        raise ValueError(f"bench: rounds must be 1 or more, got {rounds}")
    if only is not None:
        raise ValueError(f"bench: machine has no cases to choose from, got --only {only}")
    with Watch() as watch:
        machine = measured(quick)
        for _ in range(rounds - 1):
            machine = better(machine, measured(quick))
    print(f"{machine.cpu}, {os.cpu_count()} CPUs, {machine.threads} threads in use")
    print(f"{machine.fma_gflops:8.1f} GFLOP/s  fused multiply-adds, float32")
    print(f"{machine.bandwidth_gbs:8.1f} GB/s     memory")
    if busy := watch.busy():
        print(verdict_of(busy))
    if json is not None:
        write([], machine, json)


if __name__ == "__main__":
    import typer

    typer.run(main)
