"""``pointwise info``: what is in a file of point clouds or of images, or in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.messages import rounded
from pointwise.terminal import shown, terminal

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from pointwise.cloud.scan import Scan


def info(
    files: Annotated[
        list[Path],
        typer.Argument(help="Point clouds or images; folders of images, S3DIS rooms or runs."),
    ],
    columns: Annotated[
        str | None,
        typer.Option(help="Names of the columns of text, NPY and .bin, as in 'x y z intensity'."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Show the classes of clouds as this run has learned them.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="Classes as 'train --map' would make them.", metavar="3,4,5=NAME"
        ),
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(help="As 'train --ignore' would leave out.", metavar="0,7")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help='JSON with names of codes: {"2": "ground", "6": "roof"}.')
    ] = None,
) -> None:
    """Prints points, extent, density, fields and labels of clouds; sizes and classes of images."""

    from pointwise.cloud.files import read_scans
    from pointwise.training.built_in import find_run

    console = terminal()
    if run is not None and (map_ or ignore or names):
        raise ValueError("info: --run brings its own --map, --ignore and --names; leave those out")
    for i, path in enumerate(files):
        folder = find_run(path)
        is_run = (folder / "run.json").is_file()
        images = not is_run and _holds_images(path)
        scans = [] if images or is_run else read_scans(path, columns=columns)
        if scans and (run is not None or map_ or ignore or names):
            scans = _relabelled(scans, run, map_ or [], ignore, names)
        if i:
            console.print()
        console.print(f"[bold]{_escape(path)}[/bold]", soft_wrap=True)
        if is_run:
            _print_run(console, folder)
        elif images:
            _print_images(console, path)
        elif len(scans) == 1:
            _print_scan(console, scans[0], scans[0].unit or "units")
        else:
            _print_scans(console, scans)


def _relabelled(
    scans: list[Scan], run: Path | None, merge: list[str], ignore: str | None, names: Path | None
) -> list[Scan]:
    """The scans with the classes of a run, or as the options say."""
    from pointwise.training.recipe import Recipe
    from pointwise.training.relabel import read_names, relabelling
    from pointwise.training.run import read_run

    if run is None:
        called = None if names is None else read_names(names, "info")
        wanted = relabelling(scans, merge, ignore, called, "info")
        return [wanted.applied(scan) for scan in scans]
    recipe = read_run(run).recipe
    if not isinstance(recipe, Recipe):
        raise ValueError(f"info: {run} was trained on images, whose classes are not of points")
    learned = dict(zip(recipe.classes.codes, recipe.classes.names, strict=True))
    found = [recipe.relabelling.applied(scan) for scan in scans]
    for scan in found:
        scan.classes = {**scan.classes, **learned}
    return found


def _print_run(console, folder: Path) -> None:
    """What a run was trained on and to tell: task, classes, what became of codes, features."""
    from pointwise.training.recipe import Recipe
    from pointwise.training.run import read_run

    found = read_run(folder)
    recipe = found.recipe
    table = _plain_table()
    table.add_row("task", recipe.task)
    table.add_row("network", type(found.network).__name__)
    classes = zip(recipe.classes.codes, recipe.classes.names, strict=True)
    table.add_row("classes", _escape(", ".join(f"{name} ({code})" for code, name in classes)))
    if isinstance(recipe, Recipe):
        called = dict(zip(recipe.classes.codes, recipe.classes.names, strict=True))
        for group in recipe.relabelling.merged:
            codes = ", ".join(map(str, group))
            table.add_row("merged", _escape(f"{codes} are {called.get(group[0], group[0])}"))
        if ignored := recipe.relabelling.ignored:
            table.add_row("ignored", ", ".join(map(str, ignored)))
        table.add_row("features", _escape(", ".join(recipe.features.names)))
        if optional := recipe.features.optional:
            table.add_row("optional", _escape(", ".join(optional)))
        if recipe.unit is not None:
            table.add_row("unit", recipe.unit)
    for note in found.notes:
        kind, _, said = note.partition(": ")
        table.add_row(_escape(kind), _escape(said))
    console.print(table)


def _holds_images(path: Path) -> bool:
    from pointwise.training.images.sources import is_image_npz
    from pointwise.training.picture import SUFFIXES

    if path.is_dir():
        # A room as S3DIS has them may come with pictures of it.
        room = (path / "Annotations").is_dir()
        return not room and any(_holds_images(file) for file in path.rglob("*.*"))
    return path.suffix.lower() in SUFFIXES or (path.is_file() and is_image_npz(path))


def _print_images(console, path: Path) -> None:
    from collections import Counter

    import numpy as np

    from pointwise.training.images.sources import in_order, read_pictures

    pictures = read_pictures(path)
    shapes = np.array([picture.shape() for picture in pictures])
    table = _plain_table()
    if path.is_dir() or len(pictures) > 1:
        table.add_row("images", f"{len(pictures):,}")
    for name, column in (("height", 0), ("width", 1)):
        low, high = shapes[:, column].min(), shapes[:, column].max()
        table.add_row(name, f"{low:,} pixels" if low == high else f"{low:,} to {high:,} pixels")
    grey = int((shapes[:, 2] == 1).sum())
    colours = {0: "yes", len(shapes): "grey"}.get(grey, f"{grey:,} grey images")
    table.add_row("colour", colours)
    console.print(table)
    counts = Counter(picture.label for picture in pictures if picture.label is not None)
    if counts:
        names = in_order(set(counts))
        console.print()
        codes = np.arange(len(names))
        each = np.array([counts[name] for name in names])
        console.print(_classes(codes, each, dict(enumerate(names)), "images"))


def _print_scan(console, scan: Scan, unit: str) -> None:
    console.print(_facts(scan, unit))
    if scan.fields and len(scan):
        console.print()
        console.print(_fields(scan))
    if scan.labels is not None and len(scan):
        import numpy as np

        codes, counts = np.unique(scan.labels, return_counts=True)
        console.print()
        console.print(_classes(codes, counts, scan.classes, "points"))
    _print_conventions(console, [scan])


def _print_conventions(console, scans: list[Scan]) -> None:
    from pointwise.training.conventions import assumed, left_out

    lines = [f"no class: {line}" for line in left_out(scans)]
    lines += [f"assumed: {line}" for line in assumed(scans)]
    if lines:
        console.print()
    for line in lines:
        console.print(_escape(line), soft_wrap=True)


def _print_scans(console, scans: list[Scan]) -> None:
    import numpy as np

    table = _plain_table()
    table.add_row("clouds", f"{len(scans):,}")
    if scans:
        sizes = np.array([len(scan) for scan in scans])
        table.add_row(
            "points", f"{sizes.min():,} to {sizes.max():,} a cloud, median {np.median(sizes):,.0f}"
        )
        if groups := {scan.group for scan in scans if scan.group}:
            table.add_row(
                "groups", f"{len(groups):,}, each kept whole when training and test are divided"
            )
        if fields := scans[0].fields:
            table.add_row("fields", _escape(", ".join(fields)))
    console.print(table)
    labels = [scan.label for scan in scans if scan.label is not None]
    if labels:
        console.print()
        codes, counts = np.unique(np.array(labels), return_counts=True)
        console.print(_classes(codes, counts, scans[0].classes, "clouds"))
    per_point = [scan.labels for scan in scans if scan.labels is not None]
    if per_point:
        console.print()
        codes, counts = np.unique(np.concatenate(per_point), return_counts=True)
        console.print(_classes(codes, counts, scans[0].classes, "points"))
    _print_conventions(console, scans)


def _facts(scan: Scan, unit: str) -> Table:
    from pointwise.cloud.extent import far_apart, find_extent

    table = _plain_table()
    table.add_row("points", f"{len(scan):,}")
    if not len(scan):
        return table
    extent = find_extent(scan.points)
    points = extent.kept
    low, high = points.min(axis=0), points.max(axis=0)
    for axis, a, b in zip("xyz", low, high, strict=True):
        table.add_row(
            axis, f"{_number(a, b - a)} to {_number(b, b - a)}, {rounded(b - a, 6)} {unit}"
        )
    edge, cells = occupied_cells(points)
    if edge:
        density = len(points) / (cells * edge**2)
        table.add_row(
            "density", f"{rounded(density, 4)} points/{unit}² on {cells:,} cells of {edge:g} {unit}"
        )
    if len(points) > 1:
        table.add_row("spacing", f"{rounded(mean_spacing(points), 4)} {unit} to the nearest point")
    if said := far_apart(extent):
        table.add_row("far away", said)
    if scan.label is not None:
        table.add_row("label", _escape(scan.classes.get(scan.label, str(scan.label))))
    if scan.group:
        table.add_row("group", _escape(scan.group))
    return table


def occupied_cells(points: np.ndarray) -> tuple[float, int]:
    """Edge and number of the square cells in x, y that hold points ``[N, 3]``; (0, 0) of a line.

    The edge is 1, or, in clouds that are sparser or smaller, a power of ten (or two or five of it)
    that gives about ten points a cell, so that the gaps between points do not count as empty.
    """
    import numpy as np

    from pointwise.cloud.extent import find_extent

    low = points[:, :2].min(axis=0)
    parts = find_extent(points).parts
    area = float(sum(np.prod(np.ptp(part[:, :2], axis=0)) for part in parts))
    if area == 0:
        return 0.0, 0
    wanted = float(np.sqrt(10 * area / len(points)))
    decade = 10.0 ** np.floor(np.log10(wanted))
    edge = next(step * decade for step in (1, 2, 5, 10) if step * decade >= wanted)
    if wanted < 1 and area >= 100:  # enough of it to count whole units
        edge = 1.0
    cells = np.floor((points[:, :2] - low) / edge).astype(np.int64)
    return float(edge), len(np.unique(cells[:, 0] << 32 | cells[:, 1]))


def mean_spacing(points: np.ndarray, sample: int = 500) -> float:
    """Mean distance to the nearest other point ``[N, 3]``, over a fixed sample of the points.

    The points are sorted along their longest axis, so that only a slab around each has to be looked
    at; it is widened until it is sure to hold the nearest.
    """
    import numpy as np

    extents = points.max(axis=0) - points.min(axis=0)
    axis, extent = int(extents.argmax()), float(extents.max())
    ordered = points[np.argsort(points[:, axis], kind="stable")]
    x = ordered[:, axis]
    chosen = np.unique(np.linspace(0, len(points) - 1, min(sample, len(points))).astype(np.int64))
    distances = []
    for i in chosen:
        width = max(extent / len(points) ** 0.5, np.spacing(abs(x).max()))
        while True:
            first = np.searchsorted(x, x[i] - width)
            last = np.searchsorted(x, x[i] + width, side="right")
            squares = ((ordered[first:last] - ordered[i]) ** 2).sum(axis=1)
            squares[i - first] = np.inf
            nearest = float(np.sqrt(squares.min()))
            if nearest <= width or last - first == len(points):
                break
            width = min(2 * width, nearest)
        distances.append(nearest)
    return float(np.mean(distances))


def _fields(scan: Scan) -> Table:
    table = _headed_table("field", "type", "range")
    for name, values in scan.fields.items():
        shape = f" × {values.shape[1]}" if values.ndim == 2 else ""
        low, high = (rounded(value, 6) for value in _finite_range(values))
        table.add_row(
            _escape(name), f"{values.dtype}{shape}", low if low == high else f"{low} to {high}"
        )
    return table


def _finite_range(values: np.ndarray) -> tuple[float, float]:
    import numpy as np

    finite = values[np.isfinite(values)]
    return (finite.min(), finite.max()) if finite.size else (float("nan"), float("nan"))


def _classes(codes: np.ndarray, counts: np.ndarray, names: dict[int, str], counted: str) -> Table:
    from pointwise.cloud.scan import UNLABELLED

    table = _headed_table("class", "code", counted, "share", "")
    for column in table.columns[1:4]:
        column.justify = "right"
    total = counts.sum()
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        name = "(unlabelled)" if code == UNLABELLED else names.get(code, f"class {code}")
        bar = "█" * round(20 * count / total) or "▏"
        table.add_row(_escape(name), str(code), f"{count:,}", f"{count / total:.1%}", bar)
    return table


def _plain_table() -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    return table


def _headed_table(*names: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(*names, box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False)


def _number(value: float, extent: float) -> str:
    """With as many digits as tell a thousandth of the extent apart."""
    import math

    digits = max(0, 3 - math.floor(math.log10(extent))) if extent > 0 else 3
    return f"{value:,.{min(digits, 9)}f}"


def _escape(text: object) -> str:

    return shown(text)
