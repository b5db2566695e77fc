"""Point clouds from files and back: one module for every family of formats."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pointwise.cloud.files import (
    e57,
    hdf5,
    kitti,
    las,
    mesh,
    npz,
    pcd,
    ply,
    s3dis,
    text,
    text_writer,
)
from pointwise.cloud.files.columns import columns_named, scan_from_columns
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.messages import first_line

__all__ = [
    "SUFFIXES",
    "WRITABLE",
    "check_labels",
    "read_scan",
    "read_scans",
    "sample_surface",
    "write_fields",
    "write_labels",
    "write_scan",
]

_TEXT = (".xyz", ".xyzn", ".xyzrgb", ".txt", ".csv", ".asc", ".pts")
_READERS: dict[str, Callable[[Path], list[Scan]]] = {
    ".las": las.read,
    ".laz": las.read,
    ".ply": ply.read,
    ".pcd": pcd.read,
    **dict.fromkeys(_TEXT, text.read),
    ".off": mesh.read,
    ".npy": npz.read_npy,
    ".e57": e57.read,
    ".bin": kitti.read,
    ".h5": hdf5.read,
    ".hdf5": hdf5.read,
}
SUFFIXES = (*_READERS, ".npz")
_WRITERS = {
    ".las": las,
    ".laz": las,
    ".ply": ply,
    ".npz": npz,
    **dict.fromkeys(text_writer.SUFFIXES, text_writer),
}
WRITABLE = tuple(_WRITERS)


def read_scan(path: str | Path, *, columns: str | Sequence[str] | None = None) -> Scan:
    """The one cloud of a file, or of the folder of an S3DIS room; ``columns`` as in ``read_scans``.

    Raises ValueError if the file holds several clouds, or cannot be read; the message names it.
    """
    scans = read_scans(path, columns=columns)
    if len(scans) != 1:
        raise ValueError(f"{path}: holds {len(scans)} clouds, not one; use read_scans")
    return scans[0]


def read_scans(
    path: str | Path,
    *,
    columns: str | Sequence[str] | None = None,
    window: int = 60,
    stride: int = 30,
) -> list[Scan]:
    """All clouds of a file (HDF5 and NPZ hold many) or of the folder of an S3DIS room.

    ``columns`` names the columns of text, NPY and ``.bin`` files, such as ``"x y z intensity _ r g
    b"``, where ``_`` is left out. Recordings of frames give one cloud for every ``window`` frames,
    beginning each ``stride``, with the field ``time`` (place of the frame in the window, 0 to 1).

    Points whose coordinates are not finite are dropped, with a warning; ``Scan.kept`` tells which.
    Other fields may hold NaN. Raises ValueError or OSError, in one line that names the file, for
    whatever cannot be read, and where no point is left.
    """
    path = Path(path)
    names = None if columns is None else columns_named(columns)
    with _naming(path):
        scans = _read(path, names, window, stride)
        for i, scan in enumerate(scans):
            scan.source = path
            scan.name = scan.name or (path.stem if len(scans) == 1 else f"{path.stem}[{i}]")
        return _with_finite_points(path, scans)


def _with_finite_points(path: Path, scans: list[Scan]) -> list[Scan]:
    """Drops points that are not finite, in one line for the whole file."""
    finite = [np.isfinite(scan.points).all(axis=1) for scan in scans]
    broken = [k for k, mask in enumerate(finite) if not mask.all()]
    if not broken:
        return scans
    total = sum(map(len, scans))
    dropped = sum(int((~finite[k]).sum()) for k in broken)
    first = int(np.argmin(finite[broken[0]]))
    if dropped == total:
        raise ValueError(f"none of its {total} points has finite coordinates")
    among = f" in {len(broken)} of {len(scans)} clouds" if len(scans) > 1 else ""
    of = f" of {scans[broken[0]].name}" if len(scans) > 1 else ""
    warnings.warn(
        f"{path}: dropped {dropped} of {total} points{among}, which have no finite coordinates, "
        f"the first at index {first}{of}",
        stacklevel=3,
    )
    for k in broken:
        whole = scans[k]
        left = whole.select(finite[k])
        scans[k] = replace(left, kept=finite[k], no_class=whole.no_class)
    return scans


def sample_surface(path: str | Path, n: int, seed: int = 0) -> Scan:
    """``n`` points drawn evenly on the surface of a mesh (OFF or PLY), with normals.

    ModelNet's meshes have too few vertices to be clouds by themselves. Raises ValueError where the
    file has no faces.
    """
    path = Path(path)
    if n < 1:
        raise ValueError(f"sample_surface: n must be 1 or more, got {n}")
    if path.suffix.lower() not in (".off", ".ply"):
        raise ValueError(f"{path}: surfaces are sampled from .off and .ply, not {path.suffix!r}")
    with _naming(path):
        _check_present(path)
        scan = mesh.sample(path, n, seed)
    scan.name, scan.source = path.stem, path
    return scan


def write_scan(scan: Scan, path: str | Path) -> None:
    """Writes a cloud with its fields, labels and class names: LAS, LAZ, PLY, NPZ or text.

    The suffix decides. LAS keeps coordinates to 1 mm, finer in clouds smaller than a kilometre; an
    axis longer than 4,294 km to less, in which case a warning says to what. All others keep them to
    the bit. Text (.xyz, .txt, .asc, .csv) names its columns in its first line.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; use {', '.join(_WRITERS)}")
    _check(scan)
    with _naming(path):
        writer.write(scan, path)


def write_labels(
    scan: Scan, labels: np.ndarray, path: str | Path, fields: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes the file a cloud came from again, with ``labels`` (class codes ``[N]``) in it.

    Everything else in the file stays: header, coordinates and fields of LAS and LAZ, faces of PLY,
    other arrays of NPZ. ``fields`` (floats ``[N]`` by name) are added to what each point has, or
    replace what it has under the name, which a warning says. Points that were dropped in reading
    become ``UNLABELLED``, which is written as 0 in LAS, and their fields NaN. Where ``path`` has
    another format, or the cloud is no longer what its file holds, the cloud itself is written with
    the labels; so is text, with the numbers that were read from it.
    """
    path = Path(path)
    labels, added = np.asarray(labels), dict(fields or {})
    if labels.dtype.kind not in "ui":
        raise TypeError(f"write_labels: labels must be whole numbers, got {labels.dtype}")
    if labels.shape != (len(scan),):
        raise ValueError(f"write_labels: labels must be [{len(scan)}], got {list(labels.shape)}")
    for name, values in added.items():
        if values.shape != labels.shape or values.dtype.kind != "f":
            raise ValueError(f"write_labels: {name} must be floats [{len(scan)}]")
        if name in scan.fields:
            warnings.warn(f"{path}: the field {name!r} is replaced", stacklevel=2)
    writer = _WRITERS.get(path.suffix.lower())
    source = scan.source
    if writer is not None and source is not None and _same_format(source, path):
        original = _as_read(scan, source)
        if original is not None:
            with _naming(path):
                rows = _on_rows(labels.astype(np.int64), original.kept, UNLABELLED)
                added = {n: _on_rows(v, original.kept, np.nan) for n, v in added.items()}
                writer.write_labels(source, scan, rows, path, added)
            return
        warnings.warn(
            f"{path}: the cloud is not what {source} holds now, so its header is not kept",
            stacklevel=2,
        )
    together = scan.fields | added
    write_scan(replace(scan, fields=together, labels=labels.astype(np.int64)), path)


def write_fields(scan: Scan, path: str | Path, fields: Mapping[str, np.ndarray]) -> None:
    """Writes a cloud with more ``fields`` (numbers ``[N]`` by name), and all else as it was.

    A LAS or LAZ file that it came from is written again: header, records (the coordinate system is
    one of them), coordinates and class codes stay, and points that were dropped in reading have 0
    in the new fields. What has another format, or is no longer what its file holds, is written by
    ``write_scan``. Fields of these names are replaced.
    """
    path, source = Path(path), scan.source
    for name, values in fields.items():
        if values.shape != (len(scan),):
            raise ValueError(f"write_fields: {name} must be [{len(scan)}], got {[*values.shape]}")
    if source is not None and _same_format(source, path) and _WRITERS[path.suffix.lower()] is las:
        original = _as_read(scan, source)
        if original is not None:
            rows = {name: _on_rows(v, original.kept, 0) for name, v in fields.items()}
            with _naming(path):
                las.write_fields(source, path, rows)
            return
        warnings.warn(
            f"{path}: the cloud is not what {source} holds now, so its header is not kept",
            stacklevel=2,
        )
    write_scan(replace(scan, fields=scan.fields | dict(fields)), path)


def check_labels(
    scan: Scan,
    codes: Sequence[int],
    path: str | Path,
    fields: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Raises where ``write_labels`` could not write labels of these class codes to ``path``.

    It writes one point, which takes no time: to be called before labels take hours. The folder of
    ``path`` is made. Errors are those of ``write_labels``, and OSError where nothing can be
    written.
    """
    path, source = Path(path), scan.source
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; use {', '.join(_WRITERS)}")
    labels, added = np.asarray(codes, np.int64), dict(fields or {})
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=path.parent) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come with the labels
            if source is not None and _same_format(source, path):
                with _naming(source):
                    writer.check_labels(source, scan, labels, path, added)
            else:
                whole = replace(scan, fields=scan.fields | added)
                few = whole.select(np.zeros(min(len(labels), len(scan)), np.int64))
                trial = Path(folder, f"a{''.join(path.suffixes[-2:])}")
                writer.write(replace(few, labels=labels[: len(few)]), trial)


def _read(path: Path, names: list[str] | None, window: int, stride: int) -> list[Scan]:
    if path.is_dir():
        if names is not None:
            _refuse_columns("a room of S3DIS")
        return s3dis.read(path)
    _check_present(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"unknown suffix {path.suffix!r}; known are {', '.join(SUFFIXES)}")
    if names is not None:
        return _read_columns(path, names)
    if suffix == ".npz":
        return npz.read(path, window, stride)
    return _READERS[suffix](path)


def _read_columns(path: Path, names: list[str]) -> list[Scan]:
    """The cloud of a file that does not name its columns, by their names."""
    suffix = path.suffix.lower()
    if suffix == ".bin":
        return kitti.read(path, names)
    if suffix in _TEXT:
        return text.read(path, names)
    if suffix != ".npy":
        _refuse_columns(suffix)
    (scan,) = npz.read_npy(path)
    if any(re.fullmatch(r"feature\d+", name) is None for name in scan.fields):
        _refuse_columns("a structured .npy")
    columns = [*scan.points.T, *scan.fields.values()]
    if len(columns) != len(names):
        raise ValueError(f"columns names {len(names)} columns, the array has {len(columns)}")
    pairs = [pair for pair in zip(names, columns, strict=True) if pair[0] != "_"]
    return [scan_from_columns(dict(pairs))]


def _refuse_columns(kind: str) -> None:
    raise ValueError(f"columns names what text, .npy and .bin hold; {kind} names its own")


def _check_present(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError("is empty (0 bytes)")


def _check(scan: Scan) -> None:
    n = len(scan)
    if scan.points.shape != (n, 3):
        raise ValueError(f"write_scan: points must be [N, 3], got {list(scan.points.shape)}")
    if not np.isfinite(scan.points).all():
        raise ValueError("write_scan: points must be finite, got NaN or infinity")
    for name, values in scan.fields.items():
        if len(values) != n:
            raise ValueError(f"write_scan: field {name!r} must have {n} rows, got {len(values)}")
    if scan.labels is not None and scan.labels.shape != (n,):
        raise ValueError(f"write_scan: labels must be [{n}], got {list(scan.labels.shape)}")


def _same_format(source: Path, path: Path) -> bool:
    family = _WRITERS.get(source.suffix.lower())
    kept = family is not None and hasattr(family, "write_labels")
    return source.is_file() and kept and family is _WRITERS[path.suffix.lower()]


def _as_read(scan: Scan, source: Path) -> Scan | None:
    """The file's cloud, if its points are still the scan's, in their order: labels would shift."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they came when the scan was read
        originals = read_scans(source)
    same = len(originals) == 1 and np.array_equal(originals[0].points, scan.points)
    return originals[0] if same else None


def _on_rows(values: np.ndarray, kept: np.ndarray | None, other: float) -> np.ndarray:
    """Values of all rows of a file, from those of the points that reading has kept of them."""
    if kept is None:
        return values
    rows = np.full(len(kept), other, dtype=values.dtype)
    rows[kept] = values
    return rows


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file into one line that begins with its path."""
    try:
        yield
    except (ImportError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except MemoryError:
        raise ValueError(f"{path}: asks for more memory than there is; is it damaged?") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: damaged, has bytes that are no text where text belongs"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {first_line(error)}") from error
    except OSError as error:
        raise OSError(f"{path}: {first_line(error)}") from error
    except Exception as error:  # every library has its own
        kind = path.suffix.lower().removeprefix(".").upper()
        raise ValueError(f"{path}: not a readable {kind} file ({first_line(error)})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of lazrs, which is written in Rust
            raise
        raise ValueError(f"{path}: not a readable LAZ file ({first_line(error)})") from error
