"""The ``pointwise`` command: one file per subcommand.

A command's file imports only the standard library and typer at the top, and everything heavy inside
its function, so that ``pointwise --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings

# Threads that wait go to sleep after some microseconds: in a training that costs nothing, and
# beside other programs it is several times faster. OpenMP reads it when torch loads it. What takes
# milliseconds loses by it, and comparisons are to be as in everybody's own programs.
if sys.argv[1:2] not in ([name] for name in ("bench", "compare", "profile", "separate", "speedup")):
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import typer

from pointwise import interruption
from pointwise.cli.bench import bench
from pointwise.cli.classify import classify
from pointwise.cli.compare import compare
from pointwise.cli.demo import demo
from pointwise.cli.evaluate import evaluate
from pointwise.cli.explain import explain
from pointwise.cli.export_run import export_run
from pointwise.cli.info import info
from pointwise.cli.label import label
from pointwise.cli.profile import profile
from pointwise.cli.progress import tell_of_kernels
from pointwise.cli.separate import separate
from pointwise.cli.speedup import speedup
from pointwise.cli.suggest import suggest
from pointwise.cli.train import train
from pointwise.cli.view import view
from pointwise.terminal import plain

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Convolution at every point of an image or of a point cloud.",
)
for command in (
    train,
    label,
    evaluate,
    suggest,
    classify,
    export_run,
    speedup,
    separate,
    profile,
    compare,
    info,
    view,
    explain,
    demo,
    bench,
):
    app.command()(command)


def main() -> None:
    """Runs the command line; what is wrong with the input becomes one plain line on stderr."""
    warnings.showwarning = show_warning
    tell_of_kernels()
    try:
        with interruption.as_ctrl_c():
            app()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("POINTWISE_DEBUG"):
            raise
        print(f"pointwise: {plain(error)}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:
        # So typer ends on a KeyboardInterrupt, without a word; of several processes, one says it.
        if ended.code not in (INTERRUPTED, interruption.exit_code()):
            raise
        if "LOCAL_RANK" not in os.environ:
            print(f"pointwise: {interruption.word()}", file=sys.stderr)
        sys.exit(interruption.exit_code())


def show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning as one plain line; where in the code it arose helps nobody here."""
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes says it
    print(f"pointwise: {plain(message)}", file=sys.stderr)
