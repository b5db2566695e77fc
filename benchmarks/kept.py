"""What long comparisons found, case by case, in a JSON file that a later run goes on with.

The file is written after each case, so that an interrupted run has lost the case it was at. Cases
of other runs stay, unless they are measured again; so all of a file must come from one machine and
the same versions of everybody.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pointwise.atomic import replacing
from pointwise.costs.machine import cpu_name

_PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf",
             "ai-edge-litert", "litert-torch", "MNN", "ncnn", "pnnx", "timm")  # fmt: skip


class Kept:
    """Records by the names of cases; without a ``path``, in memory alone.

    Raises ValueError for a file of another comparison, machine, or of other versions.
    """

    def __init__(self, comparison: str, path: Path | None) -> None:
        self.path = path
        self.found: dict[str, Any] = {"comparison": comparison, **_here(), "cases": {}}
        if path is not None and path.exists():
            self.found["cases"] = _cases(path, self.found)

    @property
    def cases(self) -> dict[str, Any]:
        return self.found["cases"]

    def put(self, name: str, record: dict[str, Any]) -> None:
        """Adds what was found in a case, and writes the file anew."""
        self.cases[name] = {"measured": time.strftime("%Y-%m-%d"), **record}
        if self.path is not None:
            with replacing(self.path) as part:
                part.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")

    def missing(self, names: Iterable[str], resume: bool) -> list[str]:
        """The cases to measure: with ``resume``, those of ``names`` that are not there."""
        if resume and self.path is None:
            raise ValueError("bench: --resume goes on with the file of --json; give that too")
        return [name for name in names if not (resume and name in self.cases)]


def _here() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads()}
    return {"machine": machine, "versions": versions}


def _cases(path: Path, here: dict[str, Any]) -> dict[str, Any]:
    try:
        found = read(path)
    except ValueError as error:
        raise ValueError(f"bench: {error}; give --json another file") from error
    for what in ("comparison", "machine", "versions"):
        if found[what] != here[what]:
            raise ValueError(
                f"bench: {path} holds results of {_words(found[what])}, and these would be of "
                f"{_words(here[what])}; give --json another file"
            )
    return found["cases"]


def read(path: Path) -> dict[str, Any]:
    """A file that ``Kept`` has written; ValueError for any other."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(found[what], dict) for what in ("machine", "versions", "cases")):
            return found
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is no file of such a comparison")


def _words(found: Any) -> str:
    if not isinstance(found, dict):
        return str(found)
    return ", ".join(f"{name} {value}" for name, value in found.items())
