"""``pointwise view``: a point cloud as a page to turn in the browser, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointwise.terminal import plain


def view(
    file: Annotated[Path, typer.Argument(help="The point cloud: LAS, LAZ, PLY, PCD, E57, …")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page to write; default: FILE's name with .html"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Colour by label, color, intensity or height; default: the first it has"),
    ] = None,
    cloud: Annotated[
        int, typer.Option(help="Which cloud, counted from 1, of a file that holds several")
    ] = 1,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of the columns of text, NPY and .bin, as in 'x y z intensity'."),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser")
    ] = False,
) -> None:
    """Writes a point cloud as an HTML page that works offline, and as a PNG beside it."""
    from pointwise.cloud.files import read_scans
    from pointwise.report.picture import write_picture
    from pointwise.report.scene import write_page

    page = output or Path(f"{file.stem}.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--output must end in .html, got {page}")
    picture = page.with_suffix(".png")
    for target in (page, picture):
        if target.resolve() == file.resolve():
            raise ValueError(f"{target} is the input; choose another name with --output")

    scans = read_scans(file, columns=columns)
    if not 1 <= cloud <= len(scans):
        raise ValueError(f"--cloud must be 1 to {len(scans)}, the clouds of {file}, got {cloud}")
    if len(scans) > 1:
        print(
            f"{plain(file)} holds {len(scans)} clouds; this is number {cloud} (choose with --cloud)"
        )
    scan = scans[cloud - 1]

    write_page(scan, page, by=by)
    write_picture(scan, picture, by=by)
    print(plain(page))
    print(plain(picture))
    if open_page:
        typer.launch(page.resolve().as_uri())
