"""``pointwise bench``: how fast, and against whom, on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def bench(
    name: Annotated[str, typer.Argument(help="Which comparison, such as 'cloud'.")],
    json: Annotated[
        Path | None, typer.Option(help="Also write the numbers to this JSON file.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 7,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny cases, to see that it runs; times mean nothing.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            help="Only these cases: parts of names, or patterns such as 'dw3_*_b8', separated by "
            "commas. '*' is all, also those that a usual run leaves out."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or cuda:1; not all benchmarks know GPUs, and those say so.",
            show_default="cpu; cuda for gpu_choice",
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="accelerate, saved: kinds of models that people bring, by parts of names and "
            "commas; 'all'; 'timm'; or models as speedup takes them."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what the file of --json holds; measure the rest.")
    ] = False,
) -> None:
    """Times pointwise against other tools, after checking that they all give the same results."""
    import importlib
    import inspect
    import sys

    folder = benchmarks()
    known = names(folder)
    if name not in known:
        raise ValueError(f"bench: there is no {name!r}; there are {', '.join(known)}")
    # The files import one another by their plain names, as they do when run as scripts.
    sys.path.insert(0, str(folder))
    main = importlib.import_module(name).main
    taken = inspect.signature(main).parameters
    if "device" not in taken and device not in (None, "cpu"):
        raise ValueError(f"bench: {name} runs on the CPU alone, got --device {device}")
    more = {"models": models, "resume": resume or None}
    for option, value in more.items():
        if value is not None and option not in taken:
            raise ValueError(f"bench: {name} has no --{option}; run it without")
    more["device"] = device if "device" in taken else None
    given = {option: value for option, value in more.items() if value is not None}
    main(json=json, rounds=rounds, quick=quick, only=only, **given)


def benchmarks() -> Path:
    """The folder of the benchmarks: inside an installed package, or beside ``src`` in a checkout.

    Raises OSError where there is none.
    """
    here = Path(__file__)
    places = here.parents[1] / "benchmarks", here.parents[3] / "benchmarks"
    for place in places:
        if (place / "frame.py").is_file():
            return place
    raise FileNotFoundError(
        f"bench: no benchmarks in {places[0]} or {places[1]}; install pointwise again"
    )


def names(folder: Path) -> list[str]:
    """The benchmarks in a folder: the files with a ``main``."""
    return sorted(
        file.stem
        for file in folder.glob("*.py")
        if re.search(r"^def main\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    )
