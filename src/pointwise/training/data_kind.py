"""Whether data are point clouds or images: by what the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pointwise.training.images.sources import is_image_npz
from pointwise.training.picture import SUFFIXES as IMAGES

Kind = Literal["clouds", "images"]
# Formats that hold clouds, and as often notes or tables that lie beside images.
NOTES = (".txt", ".csv", ".npy", ".bin")


def kind_of(data: Sequence[str]) -> Kind:
    """What ``data``, the names that ``pointwise train`` is given, are.

    Raises ValueError where they are both, OSError where there is nothing.
    """
    found = {name: _kind(name) for name in data}
    if len(set(found.values())) > 1:
        each = ", ".join(f"{name} ({kind})" for name, kind in found.items())
        raise ValueError(f"train: clouds and images cannot be learned together: {each}")
    return found[data[0]]


def _kind(name: str) -> Kind:
    path = Path(name)
    if not path.exists():
        if name in ("rooms", "digits"):  # built in
            return "clouds" if name == "rooms" else "images"
        raise FileNotFoundError(f"{name} does not exist")
    if path.is_file():
        if path.suffix.lower() in IMAGES:
            raise ValueError(
                f"train: {name} is one image, which has no class; give a folder with a folder of"
                " images for each class, or an NPZ"
            )
        return "images" if is_image_npz(path) else "clouds"
    return _kind_of_folder(path)


def _kind_of_folder(folder: Path) -> Kind:
    from pointwise.cloud.files import SUFFIXES

    clouds, images, notes = [], [], 0
    for file in sorted(folder.rglob("*")):
        suffix = file.suffix.lower()
        if file.name.startswith("."):
            continue
        if file.is_dir():
            if file.name == "Annotations":  # of a room as S3DIS has them
                clouds.append(file)
        elif suffix in IMAGES or is_image_npz(file):
            images.append(file)
        elif suffix in NOTES:
            notes += 1
        elif suffix in SUFFIXES:
            clouds.append(file)
    if clouds and images:
        raise ValueError(
            f"train: {folder} holds clouds, such as {clouds[0].relative_to(folder)}, and images,"
            f" such as {images[0].relative_to(folder)}; give a folder that holds one of them"
        )
    if not (clouds or images or notes):
        raise ValueError(
            f"train: {folder} holds nothing to learn from; readable are images"
            f" ({', '.join(IMAGES)}) and clouds ({', '.join(sorted(SUFFIXES))})"
        )
    return "images" if images and len(images) >= notes else "clouds"
