"""How far a command is: said on stderr, so that what is piped or kept stays as it is.

On a terminal a bar, which is gone when done; elsewhere a line now and then, where it takes long.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pointwise.messages import rough_duration

FIRST, EVERY = 5.0, 15.0  # seconds after which there is a line, where there is no terminal
_ENOUGH = 0.1  # of the work: before, it would be a guess how long the rest takes


class Advance(Protocol):
    """Called with how much is done, of how much, and of what, where that changes on the way."""

    def __call__(self, done: int, total: int, words: str = "") -> None: ...


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """Shows how much is done, and how long the rest will take."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    console = Console(stderr=True)
    if not _speaks():
        yield lambda done, total, words="": None
        return
    if not console.is_terminal:
        yield _lines(title)
        return
    words = TextColumn("{task.description}", markup=False)
    left = Left(elapsed_when_finished=True)
    with Progress(words, BarColumn(), TaskProgressColumn(), left, console=console,
                  transient=True) as shown:  # fmt: skip
        task = shown.add_task(title, total=None)

        def advance(done: int, total: int, words: str = "") -> None:
            if words and words != shown.tasks[0].description:
                shown.reset(task, description=words)  # and the time that is left with it
            shown.update(task, completed=done, total=total)

        yield advance


def _lines(title: str) -> Advance:
    begin = time.monotonic()
    said, about = begin + FIRST - EVERY, title

    def advance(done: int, total: int, words: str = "") -> None:
        nonlocal begin, said, about
        now = time.monotonic()
        if words and words != about:
            begin, about = now, words
        if now - said < EVERY or done >= total:
            return
        said = now
        how_far = f": {100 * done // total} % done" if done else " …"
        if done >= _ENOUGH * total:
            how_far += f", about {rough_duration((now - begin) / done * (total - done))} left"
        print(f"{about}{how_far}", file=sys.stderr)

    return advance


@contextmanager
def working(title: str) -> Iterator[Callable[[str], None]]:
    """Shows that something is going on whose end is not known; yields what changes the words."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not _speaks():
        yield lambda words: None
        return
    if not console.is_terminal:
        yield _words()
        return
    with console.status(escape(title)) as status:
        yield lambda words: status.update(escape(words))


def _words() -> Callable[[str], None]:
    said = time.monotonic() + FIRST - EVERY

    def say(words: str) -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY:
            said = time.monotonic()
            print(f"{words} …", file=sys.stderr)

    return say


class KernelLines(logging.Handler):
    """Says on stderr that kernels are compiled, which takes half a minute on a new machine."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count, self.said = 0, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if record.msg.startswith("compiled"):
            self.count += 1
        elif not self.said:
            isa = record.args[0] if isinstance(record.args, tuple) and record.args else "this CPU"
            self.said = now
            print(
                f"compiling kernels for {isa} (once; half a minute where there are none yet)…",
                file=sys.stderr,
            )
        elif now - self.said > EVERY:
            self.said = now
            print(f"compiling kernels: {self.count} are ready", file=sys.stderr)


def tell_of_kernels() -> None:
    """Makes the command line say what the library itself keeps silent about."""
    if not _speaks():
        return
    log = logging.getLogger("pointwise.kernels")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [KernelLines()]


def _speaks() -> bool:
    """Of several processes the first, for all."""
    return os.environ.get("RANK", "0") == "0"
