"""``pointwise explain``: a page that shows, step by step, what each convolution does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointwise.cli.progress import working
from pointwise.terminal import shown, terminal


def explain(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "explain.html"
    ),
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Write an interactive page: what convolutions do, step by step, and cost."""
    if out.is_dir():
        raise ValueError(
            f"{out} is a folder; name a file in it, as in --out {out / 'explain.html'}"
        )
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must end in .html, got {out}")

    console = terminal()
    with working("computing the examples"):
        from pointwise.report.explain import write_page

        try:
            write_page(out)
        except (FileExistsError, NotADirectoryError) as error:
            raise OSError(f"{out} cannot be written: its folder is a file") from error
        except OSError as error:
            raise OSError(f"{out} cannot be written: {error.strerror}") from error
    console.print(f"{shown(out)} ({out.stat().st_size / 1000:.0f} kB)", soft_wrap=True)
    if open_page:
        typer.launch(out.resolve().as_uri())
    else:
        console.print("Open it in any browser; --open does so at once.")
