"""Point clouds from files and back: one module for every family of formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pointwise.cloud.files import e57, hdf5, kitti, las, mesh, npz, pcd, ply, s3dis, text
from pointwise.cloud.scan import Scan

__all__ = [
    "SUFFIXES",
    "WRITABLE",
    "check_labels",
    "read_scan",
    "read_scans",
    "sample_surface",
    "write_labels",
    "write_scan",
]

_READERS: dict[str, Callable[[Path], list[Scan]]] = {
    ".las": las.read,
    ".laz": las.read,
    ".ply": ply.read,
    ".pcd": pcd.read,
    ".xyz": text.read,
    ".txt": text.read,
    ".csv": text.read,
    ".asc": text.read,
    ".pts": text.read,
    ".off": mesh.read,
    ".npy": npz.read_npy,
    ".e57": e57.read,
    ".bin": kitti.read,
    ".h5": hdf5.read,
    ".hdf5": hdf5.read,
}
SUFFIXES = (*_READERS, ".npz")
_WRITERS = {".las": las, ".laz": las, ".ply": ply, ".npz": npz}
WRITABLE = tuple(_WRITERS)


def read_scan(path: str | Path) -> Scan:
    """The one cloud of a file, or of the folder of an S3DIS room.

    Raises ValueError if the file holds several clouds, or cannot be read; the message names it.
    """
    scans = read_scans(path)
    if len(scans) != 1:
        raise ValueError(f"{path}: holds {len(scans)} clouds, not one; use read_scans")
    return scans[0]


def read_scans(path: str | Path, *, window: int = 60, stride: int = 30) -> list[Scan]:
    """All clouds of a file (HDF5 and NPZ hold many) or of the folder of an S3DIS room.

    Recordings of frames give one cloud for every ``window`` frames, beginning each ``stride``, with
    the field ``time`` (place of the frame in the window, 0 to 1). Raises ValueError or OSError, in
    one line that names the file, for whatever cannot be read.
    """
    path = Path(path)
    with _naming(path):
        scans = _read(path, window, stride)
        for i, scan in enumerate(scans):
            scan.source = path
            scan.name = scan.name or (path.stem if len(scans) == 1 else f"{path.stem}[{i}]")
            bad = ~np.isfinite(scan.points).all(axis=1)
            if bad.any():
                first = int(np.argmax(bad))
                raise ValueError(
                    f"{scan.name} has {int(bad.sum())} points without finite coordinates, the "
                    f"first at index {first}: {scan.points[first].tolist()}"
                )
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
    """Writes a cloud with its fields, labels and class names: LAS, LAZ, PLY or NPZ, by the suffix.

    LAS keeps coordinates to 1 mm, finer in clouds smaller than a kilometre; PLY and NPZ to the bit.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; use {', '.join(_WRITERS)}")
    _check(scan)
    with _naming(path):
        writer.write(scan, path)


def write_labels(scan: Scan, labels: np.ndarray, path: str | Path) -> None:
    """Writes the file a cloud came from again, with ``labels`` (class codes ``[N]``) in it.

    Everything else in the file stays: header, coordinates and fields of LAS and LAZ, faces of PLY,
    other arrays of NPZ. Where ``path`` has another format, or the cloud is no longer what its file
    holds, the cloud itself is written with the labels. ``UNLABELLED`` is written as 0 in LAS.
    """
    path = Path(path)
    labels = np.asarray(labels)
    if labels.dtype.kind not in "ui":
        raise TypeError(f"write_labels: labels must be whole numbers, got {labels.dtype}")
    if labels.shape != (len(scan),):
        raise ValueError(f"write_labels: labels must be [{len(scan)}], got {list(labels.shape)}")
    writer = _WRITERS.get(path.suffix.lower())
    source = scan.source
    if writer is not None and source is not None and _same_format(source, path):
        if _is_as_read(scan, source):
            with _naming(path):
                writer.write_labels(source, scan, labels.astype(np.int64), path)
            return
        warnings.warn(
            f"{path}: the cloud is not what {source} holds now, so its header is not kept",
            stacklevel=2,
        )
    write_scan(replace(scan, labels=labels.astype(np.int64)), path)


def check_labels(scan: Scan, codes: Sequence[int], path: str | Path) -> None:
    """Raises where ``write_labels`` could not write labels of these class codes to ``path``.

    It writes one point, which takes no time: to be called before labels take hours. The folder of
    ``path`` is made. Errors are those of ``write_labels``, and OSError where nothing can be
    written.
    """
    path, source = Path(path), scan.source
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; use {', '.join(_WRITERS)}")
    labels = np.asarray(codes, np.int64)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=path.parent) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come with the labels
            if source is not None and _same_format(source, path):
                with _naming(source):
                    writer.check_labels(source, scan, labels, path)
            else:
                few = scan.select(np.zeros(min(len(labels), len(scan)), np.int64))
                trial = Path(folder, f"a{''.join(path.suffixes[-2:])}")
                writer.write(replace(few, labels=labels[: len(few)]), trial)


def _read(path: Path, window: int, stride: int) -> list[Scan]:
    if path.is_dir():
        return s3dis.read(path)
    _check_present(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return npz.read(path, window, stride)
    if suffix not in _READERS:
        raise ValueError(f"unknown suffix {path.suffix!r}; known are {', '.join(SUFFIXES)}")
    return _READERS[suffix](path)


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
    return source.is_file() and family is _WRITERS[path.suffix.lower()]


def _is_as_read(scan: Scan, source: Path) -> bool:
    """Whether the points are still those of the file, in its order: else labels would shift."""
    originals = read_scans(source)
    return len(originals) == 1 and np.array_equal(originals[0].points, scan.points)


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
        raise ValueError(f"{path}: {_line(error)}") from error
    except OSError as error:
        raise OSError(f"{path}: {_line(error)}") from error
    except Exception as error:  # every library has its own
        kind = path.suffix.lower().removeprefix(".").upper()
        raise ValueError(f"{path}: not a readable {kind} file ({_line(error)})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of lazrs, which is written in Rust
            raise
        raise ValueError(f"{path}: not a readable LAZ file ({_line(error)})") from error


def _line(error: BaseException) -> str:
    """The first line of what a library says, or the name of its error where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
