"""``pointwise export-run``: a run as it is handed on, without what only its training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointwise.terminal import shown, terminal

OF_THE_MACHINE = {
    "cache": None,
    "devices": None,
    "workers": 0,
}  # options that mean nothing elsewhere


def export_run(
    run: Annotated[Path, typer.Argument(help="The folder of a run, from 'pointwise train'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    full: Annotated[
        bool,
        typer.Option("--full", help="Weights as they are, in float32, instead of half precision."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run that is there already.")
    ] = False,
) -> None:
    """Writes what it takes to use a run: run.json, its scores, and weights in half precision.

    Without checkpoints and logs. Every command takes it as a run, and a training can start from it
    (train --from), but it cannot be resumed.
    """
    import shutil

    import torch

    from pointwise.atomic import replacing
    from pointwise.training.built_in import find_run
    from pointwise.training.run import load_run, save_run, save_weights

    folder = find_run(run)
    if (out / "run.json").exists() and (not force or out.resolve() == folder.resolve()):
        raise ValueError(
            f"export-run: {out} holds a run already; choose another --out, or replace another run"
            " with --force"
        )
    found = load_run(folder)
    found.options |= {name: v for name, v in OF_THE_MACHINE.items() if name in found.options}
    save_weights(found, out, None if full else torch.float16)
    save_run(found, out)
    if (folder / "metrics.json").is_file():
        with replacing(out / "metrics.json") as part:
            shutil.copyfile(folder / "metrics.json", part)
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    terminal().print(f"{shown(out)}: {size / 1e6:.2f} MB", soft_wrap=True)
