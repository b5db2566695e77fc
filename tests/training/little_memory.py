"""Reads COUNT files of one folder, and blocks of them; prints how far memory grew, in bytes.

    python little_memory.py FOLDER COUNT [CACHE] [LIMIT]

``LIMIT`` is how many bytes more than at the start the process may have; ``-`` is no cache.
"""

from __future__ import annotations

import resource
import sys
import threading
from pathlib import Path

import torch
from toys import TinyPoints, scene

import pointwise.networks
from pointwise.training.augment import Augmentation
from pointwise.training.data import feed
from pointwise.training.evaluate import evaluate
from pointwise.training.plan import plan
from pointwise.training.shelf import MEMORY, Memory, Shelf
from pointwise.training.sources import Data, load_data, read_clouds


def status(name: str) -> int:
    """Bytes of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


class Peak:
    """The most memory that is the process's own: what is mapped from files is not among it."""

    def __enter__(self):
        self.start = self.most = status("RssAnon")
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.over.wait(0.002):
            self.most = max(self.most, status("RssAnon"))

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def read(data: Data, memory: Memory) -> None:
    """Everything that a training reads: all blocks of an epoch, the validation, some tests."""
    run = plan(data, network="TinyPoints", cell_size=0.2, block=4.0, memory=memory)
    fed = feed(run.recipe, data.train, data.validation, augmentation=Augmentation(), memory=memory)
    assert sum(len(batch.labels) for part in (fed.train, fed.validation) for batch in part)
    assert evaluate(run, data.test[:2]).sum()


def main(folder: str, count: str, cache: str = "-", limit: str = "0") -> None:
    torch.set_num_threads(1)
    pointwise.networks.TinyPoints = TinyPoints
    # Whatever is imported or compiled at first use is not counted.
    read(Data("segmentation", [scene(0)], [scene(1)], [scene(2)]), MEMORY)
    memory = MEMORY if cache == "-" else Shelf(Path(cache))
    files = sorted(str(file) for file in Path(folder).iterdir())[: int(count)]
    read_clouds(Path(files[0]))
    if int(limit):
        most = status("VmData") + int(limit)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with Peak() as peak:
        read(load_data(files, held_out=0.3, memory=memory), memory)
    print(peak.most - peak.start)


if __name__ == "__main__":
    main(*sys.argv[1:])
