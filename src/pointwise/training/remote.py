"""Files in object stores (S3, Google Cloud, Azure, …), by fsspec, beside those on disks.

Formats are read from files on a disk, so what lies elsewhere is fetched, and sent when it is whole.
A URL is kept as a ``Path``, which joins and names as other paths do; ``url_of`` gives it back.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pointwise.extras import import_extra
from pointwise.messages import first_line

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory")
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.DOTALL)  # one letter is a drive's


def url_of(path: Path) -> str | None:
    """``s3://bucket/name`` of a path that was made of it; None for one on this machine."""
    found = _URL.fullmatch(path.as_posix())
    if found is None:
        return None
    root = "/" if found[1] in ("file", "local") else ""  # in place of a bucket's name
    return f"{found[1]}://{root}{found[2]}"


def name_of(path: Path) -> str:
    """What to call a file in what is printed."""
    return url_of(path) or str(path)


def is_folder(path: Path) -> bool:
    return path.is_dir() if url_of(path) is None else _ask(path, "isdir")


def is_file(path: Path) -> bool:
    return path.is_file() if url_of(path) is None else _ask(path, "isfile")


def whole(path: Path) -> Path:
    """The one path of a file, whatever it was called."""
    return path.resolve() if url_of(path) is None else path


def size_of(path: Path) -> int:
    """Bytes; 0 where there is nothing, or nothing that can be asked."""
    try:
        return path.stat().st_size if url_of(path) is None else int(_ask(path, "size") or 0)
    except OSError:
        return 0


def present(paths: Collection[Path], root: Path) -> set[Path]:
    """Those that exist; ``root`` is above all of them, or the only one."""
    if url_of(root) is None:
        return {path for path in paths if path.exists()}
    found = set(_below(root))  # one listing: of ten thousand files, not each is asked for
    return {path for path in paths if path in found}


def files_of(path: Path) -> list[Path]:
    """The readable files at a URL, as ``sources.files_of`` finds them on a disk."""
    from pointwise.cloud.files import SUFFIXES

    if is_file(path):
        return [path]
    found = _below(path)
    files = [f for f in found if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    if not found:
        raise FileNotFoundError(f"{url_of(path)} does not exist, or nothing is in it")
    if not files:
        raise ValueError(
            f"{url_of(path)} holds no readable file; readable are {', '.join(sorted(SUFFIXES))}"
        )
    return sorted(files)


def fetch(path: Path, folder: Path) -> Path:
    """The file on this machine: itself, or a copy below ``folder``."""
    url = url_of(path)
    if url is None:
        return path
    local = Path(mkdtemp(dir=folder)) / path.name  # of its own: names may occur twice
    system, place = _system(url)
    with _naming(url):
        system.get_file(place, str(local))
    return local


def send(local: Path, path: Path) -> None:
    """Puts a file where ``path`` says, in place of another, when it is whole.

    Object stores show nothing before. Elsewhere (a disk, sftp) it has another name until then.
    """
    url = url_of(path)
    assert url is not None
    system, place = _system(url)
    folder, _, name = place.rpartition("/")
    at_once = url.split(":")[0] in OBJECT_STORES
    first = place if at_once else f"{folder}/.{name}.{secrets.token_hex(8)}.part"
    with _naming(url):
        system.makedirs(folder, exist_ok=True)
        system.put_file(str(local), first)
        if not at_once:
            system.mv(first, place)


def _below(path: Path) -> list[Path]:
    url = url_of(path)
    assert url is not None
    system, place = _system(url)
    with _naming(url):
        return [Path(system.unstrip_protocol(found)) for found in system.find(place)]


def _ask(path: Path, question: str) -> Any:
    url = url_of(path)
    assert url is not None
    system, place = _system(url)
    with _naming(url):
        return getattr(system, question)(place)


def _system(url: str) -> tuple[Any, str]:
    fsspec = import_extra("fsspec", "ray")
    with _naming(url):
        system, place = fsspec.core.url_to_fs(url)
    system.invalidate_cache()  # of listings: what others write is to be seen
    return system, place


@contextmanager
def _naming(url: str) -> Iterator[None]:
    """Whatever a store's library raises becomes one line that names the file."""
    try:
        yield
    except ImportError as error:  # of the package for this kind of store
        raise ImportError(f"{url}: {first_line(error)}", name=error.name) from None
    except Exception as error:  # stores raise a dozen types that have no common ancestor
        raise OSError(f"{url}: {type(error).__name__}: {first_line(error)}") from error
