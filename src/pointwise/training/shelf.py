"""Where the arrays of scans lie: in memory, or in files that are mapped into it.

Mapped, only what is touched is read, and the system takes the memory back when others need it: so
scans of any number are learned from in the memory that a few of them need.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pointwise import __version__
from pointwise.cloud.scan import Scan
from pointwise.messages import first_line

FORM = 1  # of what is written; another one is made anew
Arrays = Mapping[str, np.ndarray]


class Held(Protocol):
    """Arrays by name, wherever they lie."""

    @property
    def arrays(self) -> Arrays: ...


@dataclass(frozen=True)
class InMemory:
    arrays: Arrays


@dataclass(frozen=True)
class InFolder:
    """Arrays in a folder's files, mapped each time they are asked for: only a path is pickled."""

    folder: Path

    @property
    def arrays(self) -> Arrays:
        return {name: self._mapped(file) for name, file in self.about["files"].items()}

    @property
    def about(self) -> dict[str, Any]:
        with _naming(self.folder):
            return json.loads((self.folder / "about.json").read_text(encoding="utf-8"))

    def _mapped(self, file: str) -> np.ndarray:
        with _naming(self.folder):
            return np.load(self.folder / file, mmap_mode="r")


class Memory:
    """Keeps what it is given as it is."""

    def hold(self, what: Sequence[object], of: Arrays, make: Callable[[], Arrays]) -> Held:
        """What ``make`` makes ``of`` arrays; ``what`` says all else that it depends on."""
        return InMemory(make())

    def scan(self, scan: Scan) -> Scan:
        return scan

    def scans_of(self, file: Path, columns: str | None, read: Callable[[], list[Scan]]):
        """The scans ``read`` from a file; ``columns`` is what else they depend on."""
        return read()


MEMORY = Memory()


class Shelf(Memory):
    """Keeps arrays in a folder, each made once, under a name that follows from all they depend on.

    Whoever asks again, another process or a training that goes on, finds them there. What is made
    by two at once is the same, and one of them stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hold(self, what: Sequence[object], of: Arrays, make: Callable[[], Arrays]) -> InFolder:
        return self._made((*what, *_names(of)), lambda: (make(), {}))

    def scan(self, scan: Scan) -> Scan:
        """The scan with its arrays mapped; those that are so already stay where they are."""
        loose = {name: values for name, values in arrays_of(scan).items() if not _is_mapped(values)}
        held = self.hold(["scan"], loose, lambda: loose).arrays if loose else {}
        fields = {name: held.get(f"field {name}", own) for name, own in scan.fields.items()}
        return replace(
            scan,
            points=held.get("points", scan.points),
            fields=fields,
            labels=held.get("labels", scan.labels),
            codes=held.get("codes", scan.codes),
            kept=None,
        )

    def scans_of(self, file: Path, columns: str | None, read: Callable[[], list[Scan]]):
        def make() -> tuple[Arrays, dict[str, Any]]:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", UserWarning)
                scans = read()
            arrays = {
                f"{i} {name}": values
                for i, scan in enumerate(scans)
                for name, values in arrays_of(scan).items()
            }
            about = {"scans": [_described(scan) for scan in scans]}
            return arrays, {**about, "said": [str(warning.message) for warning in said]}

        held = self._made(["file", str(file.resolve()), _stamp(file), columns], make)
        arrays, about = held.arrays, held.about
        for line in about["said"]:  # each time, as if the file had been read
            warnings.warn(line, stacklevel=3)
        return [_scan(i, described, arrays) for i, described in enumerate(about["scans"])]

    def _made(
        self, what: Sequence[object], make: Callable[[], tuple[Arrays, dict[str, Any]]]
    ) -> InFolder:
        text = repr((FORM, __version__, *what))
        place = self.folder / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        if not place.is_dir():
            arrays, more = make()
            _write(place, arrays, more)
        return InFolder(place)


def _names(arrays: Arrays) -> list[str]:
    return [f"{name}: {_name(values)}" for name, values in arrays.items()]


def _name(values: np.ndarray) -> str:
    """What tells an array from others: its file where it is mapped, else a digest of it."""
    if _is_mapped(values):
        return str(values.filename)  # type: ignore[attr-defined]
    digest = hashlib.blake2b(repr((values.dtype.str, values.shape)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _is_mapped(values: np.ndarray) -> bool:
    """Whether an array is all of a mapped file, and not a part of it."""
    return (
        type(values) is np.memmap
        and values.filename is not None
        and values.flags.c_contiguous
        and values.nbytes + values.offset == os.path.getsize(values.filename)
    )


def _write(place: Path, arrays: Arrays, more: dict[str, Any]) -> None:
    """Writes a folder that appears whole or not at all."""
    part = place.with_name(f".{place.name}.{secrets.token_hex(8)}.part")
    part.mkdir(parents=True)
    try:
        files = {name: f"{i}.npy" for i, name in enumerate(arrays)}
        for name, values in arrays.items():
            np.save(part / files[name], values, allow_pickle=False)
        text = json.dumps({"files": files, **more})
        (part / "about.json").write_text(text, encoding="utf-8")
        try:
            os.rename(part, place)
        except OSError:
            if not place.is_dir():  # else another process was first, with the same
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _stamp(file: Path) -> list[tuple[str, int, int]]:
    """Sizes and times of a file, or of all files in a folder that is read as one scan."""
    files = sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]
    return [(p.name, (found := p.stat()).st_size, found.st_mtime_ns) for p in files]


def arrays_of(scan: Scan) -> dict[str, np.ndarray]:
    labels = {} if scan.labels is None else {"labels": scan.labels}
    codes = {} if scan.codes is None else {"codes": scan.codes}
    fields = {f"field {name}": values for name, values in scan.fields.items()}
    return {"points": scan.points, **labels, **codes, **fields}


def _described(scan: Scan) -> dict[str, Any]:
    """All of a scan that is no array, as JSON has it."""
    return {
        "classes": list(scan.classes.items()),
        "label": scan.label,
        "name": scan.name,
        "group": scan.group,
        "source": None if scan.source is None else str(scan.source),
        "no_class": list(scan.no_class.items()),
        "assumed": list(scan.assumed),
    }


def _scan(number: int, described: dict[str, Any], arrays: Arrays) -> Scan:
    own = {
        name.removeprefix(f"{number} "): values
        for name, values in arrays.items()
        if name.startswith(f"{number} ")
    }
    source = described["source"]
    return Scan(
        points=own["points"],
        fields={n.removeprefix("field "): v for n, v in own.items() if n.startswith("field ")},
        labels=own.get("labels"),
        codes=own.get("codes"),
        classes=dict(described["classes"]),
        label=described["label"],
        name=described["name"],
        group=described["group"],
        source=None if source is None else Path(source),
        no_class={code: (count, called) for code, (count, called) in described["no_class"]},
        assumed=tuple(described["assumed"]),
    )


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Whatever is wrong with what lies in a folder becomes one line that says what helps."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise OSError(
            f"{folder} cannot be mapped: the system allows a process so many files, and no more;"
            " raise it with: sysctl vm.max_map_count=1000000"
        ) from None
    except (ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{folder} is damaged ({first_line(error)}); delete it") from None
