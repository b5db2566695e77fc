"""Who labels the files of a campaign: the workers of a Ray cluster, on one machine or on many.

A task is a file, with those beside it as its surroundings. Only paths and counts travel through
Ray: points are read and written by the worker, so that no machine has to hold those of another.
Tasks of Ray's core, not Ray Data: that streams blocks of tables through a pipeline, and would put
points, which nobody needs anywhere else, into its object store.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pointwise.cli.label_workers import size, tried
from pointwise.cli.progress import Advance
from pointwise.extras import import_extra
from pointwise.messages import first_line

if TYPE_CHECKING:
    from pointwise.training.labelling import How, Job, Labelled
    from pointwise.training.run import Run
    from pointwise.training.survey import Place

RETRIES = 3  # of a file whose worker was lost; what is wrong with a file itself is said at once
RUN_FILES = ("run.json", "weights.pt")


class Outcome(NamedTuple):
    """What a task returns, and what it warned of: said by the command, not by the worker."""

    result: Any
    warned: list[str]


class Replica(NamedTuple):
    """What a worker makes its own run of: the files' bytes, where it runs, on how many cores."""

    files: dict[str, bytes]
    device: str
    threads: int
    version: str

    @property
    def name(self) -> str:
        digest = hashlib.blake2b(repr((self.device, self.threads, self.version)).encode())
        for content in self.files.values():
            digest.update(content)
        return digest.hexdigest()


class Cluster:
    """The workers of a Ray cluster, each with one replica of the run, on a GPU where there are any.

    ``address`` is ``local`` for one that is started here and ends with the command, ``auto`` for
    the one that this machine is a part of, else where its head is. ``workers`` is how many there
    are on each machine without GPUs, which share its cores.
    """

    def __init__(self, folder: Path, address: str, device: str | None, workers: int) -> None:
        self.ray = import_extra("ray", "ray")
        self.own = not self.ray.is_initialized()
        if self.own:
            _connect(self.ray, address)
        gpus = self.ray.cluster_resources().get("GPU", 0) > 0
        device = device or ("cuda" if gpus else "cpu")
        cores = _cores(self.ray) if device == "cpu" else 1
        threads = max(1, cores // workers)
        self.needs = {"num_cpus": threads, "num_gpus": 0 if device == "cpu" else 1}
        from pointwise import __version__
        from pointwise.training.built_in import find_run

        files = {name: (find_run(folder) / name).read_bytes() for name in RUN_FILES}

        replica = Replica(files, device, threads, __version__)
        self.replica = self.ray.put(replica)  # once to each machine, not once for each task
        self.name = replica.name

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.own:
            self.ray.shutdown()  # what still runs is ended

    def places(
        self, files: Sequence[Path], columns: str | None, advance: Advance
    ) -> Iterator[Place | Exception]:
        task = self.ray.remote(num_cpus=1, max_retries=RETRIES)(_place)
        started = {task.remote(file, columns): (file, 1) for file in files}
        yield from self._as_they_end(started, advance)

    def labelled(
        self, jobs: Sequence[Job], how: How, advance: Advance
    ) -> Iterator[Labelled | Exception]:
        task = self.ray.remote(**self.needs, max_retries=RETRIES)(_label)
        sizes = [(size(job.source), job) for job in jobs]
        # The largest first, so that at the end nobody waits long for the last one.
        sizes.sort(key=lambda pair: pair[0], reverse=True)
        started = {
            task.remote(self.replica, self.name, job, how): (job.source, weight)
            for weight, job in sizes
        }
        yield from self._as_they_end(started, advance)

    def _as_they_end(self, started: dict[Any, tuple[Path, int]], advance: Advance) -> Iterator[Any]:
        """The results of tasks, each with the file it is of and what it counts for."""
        done, total = 0, sum(weight for _, weight in started.values())
        left = list(started)
        advance(0, total)
        while left:
            ended, left = self.ray.wait(left)
            for task in ended:
                file, weight = started[task]
                done += weight
                advance(done, total)
                yield self._result(task, file)

    def _result(self, task: Any, file: Path) -> Any:
        """What a task returned, or an error that says why nobody could do it."""
        from pointwise.training.remote import name_of

        try:
            outcome = self.ray.get(task)
        except self.ray.exceptions.RayTaskError:
            raise  # of this program
        except self.ray.exceptions.RayError as error:
            return OSError(
                f"{name_of(file)}: lost {RETRIES + 1} workers, perhaps for want of memory"
                f" ({type(error).__name__}); take fewer --workers, and go on with --skip-existing"
            )
        for line in outcome.warned:
            warnings.warn(line, stacklevel=2)
        return outcome.result


def _connect(ray: Any, address: str) -> None:
    # Ray's own lines, and those of its workers, say nothing that the command does not.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        options["include_dashboard"] = False
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise OSError(
            f"label: --ray {address} cannot be reached: {first_line(error)}; give 'local', 'auto'"
            " on a machine of a cluster, or HOST:6379"
        ) from None


def _cores(ray: Any) -> int:
    """Of the smallest machine, so that each has room for as many workers at least."""
    found = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return int(min((count for count in found if count >= 1), default=1))


_worker: dict[str, Run] = {}  # the runs that this process has made, one per command


def _label(replica: Replica, name: str, job: Job, how: How) -> Outcome:
    from pointwise.training.labelling import label_anywhere

    def work() -> Labelled:
        if name not in _worker:
            _worker[name] = _run_of(replica)
        return label_anywhere(_worker[name], job, how)

    return _heard(work)


def _place(file: Path, columns: str | None) -> Outcome:
    from pointwise.training.labelling import place_anywhere

    return _heard(lambda: place_anywhere(file, columns))


def _heard(work: Callable[[], Any]) -> Outcome:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        result = tried(work)
    return Outcome(result, [str(warning.message) for warning in found])


def _run_of(replica: Replica) -> Run:
    import torch

    from pointwise import __version__
    from pointwise.training.run import load_run

    if __version__ != replica.version:
        raise ValueError(
            f"label: a worker has pointwise {__version__}, and this machine {replica.version};"
            " install one version everywhere"
        )
    torch.set_num_threads(replica.threads)
    with tempfile.TemporaryDirectory(prefix="pointwise-") as place:
        for name, content in replica.files.items():
            (Path(place) / name).write_bytes(content)
        return load_run(place, replica.device)
