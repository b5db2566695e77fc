"""Who labels the files: this process, one after the other, or several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pointwise.cli.progress import Advance

if TYPE_CHECKING:
    from pointwise.training.labelling import How, Job, Labelled
    from pointwise.training.run import Run
    from pointwise.training.survey import Place

T = TypeVar("T")
FAILURES = (ValueError, OSError, ImportError, MemoryError)  # of one file, not of the program


class Here:
    """Files one after the other, in this process."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def places(
        self, files: Sequence[Path], columns: str | None, advance: Advance
    ) -> Iterator[Place | Exception]:
        from pointwise.training.labelling import place_anywhere

        for done, file in enumerate(files, 1):
            yield tried(place_anywhere, file, columns)
            advance(done, len(files))

    def labelled(
        self, jobs: Sequence[Job], how: How, advance: Advance
    ) -> Iterator[Labelled | Exception]:
        from pointwise.training.labelling import label_anywhere

        sizes = [size(job.source) for job in jobs]
        before, total = 0, sum(sizes)
        for job, own in zip(jobs, sizes, strict=True):

            def within(done: int, count: int, before: int = before, own: int = own) -> None:
                advance(before + own * done // max(count, 1), total)

            yield tried(label_anywhere, self.run, job, how, within)
            before += own
            advance(before, total)


class Workers:
    """Several processes, each with the run and its share of the cores, a file at a time."""

    def __init__(self, folder: Path, device: str, count: int) -> None:
        self.pool = ProcessPoolExecutor(
            count,
            # A forked process would wait for threads that only its parent has.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(folder, device, count, os.getpid()),
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type | None, *raised: object) -> None:
        if kind is not None:
            for process in multiprocessing.active_children():
                process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def places(
        self, files: Sequence[Path], columns: str | None, advance: Advance
    ) -> Iterator[Place | Exception]:
        futures = [self.pool.submit(_place, file, columns) for file in files]
        yield from _in_turn(futures, [1] * len(files), advance)

    def labelled(
        self, jobs: Sequence[Job], how: How, advance: Advance
    ) -> Iterator[Labelled | Exception]:
        futures = [self.pool.submit(_label, job, how) for job in jobs]
        yield from _in_turn(futures, [size(job.source) for job in jobs], advance)


def _in_turn(futures: Sequence[Future[T]], sizes: Sequence[int], advance: Advance) -> Iterator[T]:
    """What the processes return, as it comes; raises OSError where one of them has gone."""
    size = dict(zip(futures, sizes, strict=True))
    done, total = 0, sum(sizes)
    try:
        for future in as_completed(futures):
            yield future.result()
            done += size[future]
            advance(done, total)
    except BrokenProcessPool:
        raise OSError(
            "label: a worker has ended, perhaps for want of memory; take fewer --workers, and go on"
            " with --skip-existing"
        ) from None


def tried(work: Callable[..., T], *arguments: Any) -> T | Exception:
    """What the work returns, or what is wrong with the file."""
    try:
        return work(*arguments)
    except FAILURES as error:
        # Pickled, an error of a library may not come back; its line does.
        plain = OSError if isinstance(error, (OSError, MemoryError)) else ValueError
        return plain(str(error) or type(error).__name__)


def size(file: Path) -> int:
    from pointwise.training.remote import size_of

    return max(size_of(file), 1)


# The run that this process labels with; none any more when it has been told to end, but finds
# another file in the queue.
_worker: dict[str, Any] = {}


def _begin(folder: Path, device: str, count: int, parent: int) -> None:
    import torch

    from pointwise.cli import show_warning
    from pointwise.training.processes import watch_parent
    from pointwise.training.run import load_run

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _worker.clear()
        sys.exit(1)  # through what removes half-written files

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    signal.signal(signal.SIGTERM, end)
    os.environ["POINTWISE_PARENT"] = str(parent)
    watch_parent()
    warnings.showwarning = show_warning
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    _worker["run"] = load_run(folder, device)


def _place(file: Path, columns: str | None) -> Place | Exception:
    from pointwise.training.labelling import place_anywhere

    if not _worker:
        sys.exit(1)
    return tried(place_anywhere, file, columns)


def _label(job: Job, how: How) -> Labelled | Exception:
    from pointwise.training.labelling import label_anywhere

    if not _worker:
        sys.exit(1)
    return tried(label_anywhere, _worker["run"], job, how)
