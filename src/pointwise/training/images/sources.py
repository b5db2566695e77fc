"""Where images to learn from come from: the built-in digits, folders of classes, NPZ files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import numpy as np

from pointwise.cloud.files.npz_archive import array_of, kinds_of, open_npz
from pointwise.extras import import_extra
from pointwise.messages import first_line
from pointwise.training.parts import doubts, without_validation
from pointwise.training.picture import SUFFIXES, Picture
from pointwise.training.split import of_each_class
from pointwise.training.split_names import SPLITS, split_of

VALIDATION = 0.15  # of what is left for training; never of the test part


@dataclass(frozen=True)
class ImageData:
    """What a training learns from, what it is validated on, and what it is tested on."""

    train: list[Picture]
    validation: list[Picture]
    test: list[Picture]
    notes: list[str] = field(default_factory=list)  # on classes that not every part has

    def classes(self) -> list[str]:
        """The names of the classes of all parts, numbers in the order of their values."""
        return in_order(set(_counts([*self.train, *self.validation, *self.test])))


def load_images(
    data: Sequence[str],
    *,
    test: Sequence[str] = (),
    held_out: float = 0.25,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> ImageData:
    """Reads ``digits``, folders or NPZ files, and divides what they hold into three parts.

    In a folder, each folder of images is a class; folders that are called ``train``, ``test`` or
    ``validation``, and NPZ files with such a word in their name, are taken at their word. ``test``
    is never learned from, and without it ``held_out`` of each class are not. Raises ValueError
    where no classes are found.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"train: --hold-out must lie between 0 and 1, got {held_out:g}")
    parts: dict[str, list[Picture]] = {"train": [], "validation": [], "test": []}
    for name in data:
        for part, picture in _pictures(name, progress):
            parts[part].append(picture)
    if not parts["train"]:
        parts["train"], parts["test"] = parts["test"], []  # a folder that happens to be called test
    for name in test:
        parts["test"] += [picture for _, picture in _pictures(name, progress)]
    if not any(picture.label is not None for picture in parts["train"]):
        raise ValueError(
            f"train: no classes in {', '.join(data)}; sort the images into a folder for each"
            " class, or give an NPZ with 'images' and 'labels'"
        )
    parts = {
        part: [picture for picture in pictures if picture.label is not None]
        for part, pictures in parts.items()
    }
    if test and not parts["test"]:
        raise ValueError(f"train: no labelled images in --test {', '.join(test)}")
    if not parts["test"]:
        parts["train"], parts["test"] = hold_out_images(parts["train"], held_out, seed)
        if not parts["test"]:
            raise ValueError(
                "train: there are too few images to hold some out of each class; give others with"
                " --test"
            )
    lines = []
    if not parts["validation"]:
        parts["train"], parts["validation"] = hold_out_images(parts["train"], VALIDATION, seed + 1)
        if not parts["validation"]:
            lines.append(without_validation("no class has an image to spare"))
    train, validation, held = (_counts(parts[part]) for part in ("train", "validation", "test"))
    lines += doubts(train, validation, held, "images")
    return ImageData(**parts, notes=[f"note: {line}" for line in lines])


def _counts(pictures: Sequence[Picture]) -> dict[str, int]:
    """How many pictures of each class there are."""
    return dict(Counter(picture.label for picture in pictures if picture.label is not None))


def hold_out_images(
    pictures: Sequence[Picture], share: float, seed: int
) -> tuple[list[Picture], list[Picture]]:
    """Divides pictures into those to keep and those held out, ``share`` of each class.

    A group is never on both sides, and a class that has one group only is kept.
    """
    names = in_order({str(picture.label) for picture in pictures})
    labels = [names.index(str(picture.label)) for picture in pictures]
    groups = [picture.group or f"\0{i}" for i, picture in enumerate(pictures)]
    held = of_each_class(labels, groups, share, np.random.default_rng(seed))
    kept = [picture for i, picture in enumerate(pictures) if i not in held]
    return kept, [pictures[i] for i in sorted(held)]


def in_order(names: set[str]) -> list[str]:
    """Names sorted, runs of digits by their value: 2 before 10."""
    return sorted(
        names,
        key=lambda name: [
            (0, int(part), "") if part.isdigit() else (1, 0, part)
            for part in re.split(r"(\d+)", name)
        ],
    )


def read_pictures(path: Path) -> list[Picture]:
    """The images at ``path``: a file, an NPZ, or all in a folder, named by their folders' classes.

    Raises OSError where there is nothing, ValueError where nothing is an image.
    """
    return [picture for _, picture in _pictures(str(path), None)]


def _pictures(name: str, progress: Callable[[str], object] | None) -> list[tuple[str, Picture]]:
    path = Path(name)
    if name == "digits" and not path.exists():
        return [("train", picture) for picture in digits()]
    files = image_files(path)
    flat = _is_flat(path, files)
    found: list[tuple[str, Picture]] = []
    for file in files:
        if is_npz(file):
            if progress is not None:
                progress(str(file))
            part = split_of(file, path)
            found += [(part, picture) for picture in read_npz(file)]
            continue
        inner = file.relative_to(path).parts if file != path else (file.name,)
        part, label = _part_and_class(inner[:-1], flat)
        found.append((part, Picture("/".join(inner), label, file=file)))
    return found


def _is_flat(root: Path, files: Sequence[Path]) -> bool:
    """Whether some of the folders in ``root`` are classes, and not parts."""
    tops = {file.relative_to(root).parts[0] for file in files if root not in (file, file.parent)}
    return any(top.lower() not in SPLITS for top in tops)


def _part_and_class(folders: Sequence[str], flat: bool) -> tuple[str, str | None]:
    """The part that the folders of an image name, and the first of them that is no such name."""
    names = [name for name in folders if name.lower() not in SPLITS]
    if flat and folders and not names:
        return "train", folders[0]  # a class called "train" among others, such as of locomotives
    part = next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), "train")
    return part, names[0] if names else None


def image_files(path: Path) -> list[Path]:
    """The images and NPZ files of images at ``path``: itself, or what lies in the folder.

    Raises OSError where there is nothing, ValueError where nothing is an image.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file():
        return [path]
    files = [
        file
        for file in path.rglob("*")
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
        and (file.suffix.lower() in SUFFIXES or is_image_npz(file))
    ]
    if not files:
        raise ValueError(f"{path} holds no images; readable are {', '.join(SUFFIXES)} and .npz")
    return sorted(files)


def is_image_npz(file: Path) -> bool:
    """Whether a file is an NPZ that holds images, and not clouds; broken ones are not."""
    if not is_npz(file) or not is_zipfile(file):
        return False
    with ZipFile(file) as arrays:
        names = arrays.namelist()
    return "images.npy" in names and "points.npy" not in names


def is_npz(file: Path) -> bool:
    return file.suffix.lower() == ".npz"


def read_npz(path: Path) -> list[Picture]:
    """The images of an NPZ: ``images``, and maybe ``labels [N]``, ``classes`` and ``group [N]``.

    ``images`` are ``[N, H, W]`` or ``[N, H, W, 1, 3 or 4]``, or ``[N, 1 or 3, H, W]``; uint8, or
    floating-point numbers 0 to 1. ``labels`` are whole numbers, of which ``classes`` has the names,
    or names themselves. Raises ValueError, in one line that names the file.
    """
    try:
        with open_npz(path) as archive:
            held = kinds_of(archive)
            if "images" not in held:
                raise ValueError(f"has no array 'images' (it has: {', '.join(held)})")
            wanted = [n for n in ("images", "labels", "classes", "group") if n in held]
            arrays = {name: array_of(archive, name) for name in wanted}
        images = _bytes(arrays["images"])
        labels = _names(arrays.get("labels"), arrays.get("classes"), len(images))
        group = arrays.get("group")
        if group is not None and group.shape != (len(images),):
            raise ValueError(f"group must be [{len(images)}], got {list(group.shape)}")
    except MemoryError:
        raise ValueError(f"{path}: asks for more memory than there is; is it damaged?") from None
    except Exception as error:  # zip, zlib and NumPy raise a dozen types for a damaged file
        raise ValueError(f"{path}: {first_line(error)}") from error
    return [
        Picture(
            f"{path.stem}[{i}]",
            labels[i],
            group="" if group is None else str(group[i]),
            array=images[i],
        )
        for i in range(len(images))
    ]


def digits() -> list[Picture]:
    """The 1,797 handwritten digits of 8 × 8 grey pixels that scikit-learn brings."""
    found = import_extra("sklearn.datasets", "train").load_digits()
    # The pixels are 0 to 16.
    images = (found.images * (255 / 16)).round().astype(np.uint8)[:, :, :, None]
    return [
        Picture(f"digits[{i}]", str(label), array=image)
        for i, (image, label) in enumerate(zip(images, found.target.tolist(), strict=True))
    ]


def _bytes(images: np.ndarray) -> np.ndarray:
    """uint8 ``[N, H, W, 1 or 3]`` of whatever a file has."""
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and images.shape[3] not in (1, 3, 4) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(
            "images must be [N, H, W], [N, H, W, 1, 3 or 4] or [N, 1 or 3, H, W], got"
            f" {list(images.shape)}"
        )
    if images.dtype.kind == "f":
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images of {images.dtype} must lie between 0 and 1, got {low:g} to {high:g};"
                " save them as uint8"
            )
        images = (images * 255).round().astype(np.uint8)
    elif images.dtype == np.bool_:
        images = images.astype(np.uint8) * np.uint8(255)
    elif images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, or numbers 0 to 1, got {images.dtype}")
    return images[..., :3]  # without what is transparent


def _names(labels: np.ndarray | None, classes: np.ndarray | None, count: int) -> list[str | None]:
    if labels is None:
        return [None] * count
    if labels.shape != (count,) or labels.dtype.kind not in "buiUS":
        raise ValueError(
            f"labels must be whole numbers or names [{count}], got {labels.dtype}"
            f" {list(labels.shape)}"
        )
    if labels.dtype.kind in "US":
        return labels.astype(np.str_).tolist()
    if classes is None:
        return [str(label) for label in labels.astype(np.int64)]
    if labels.size and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise ValueError(
            f"labels must lie between 0 and {len(classes) - 1}, which classes has names for, got"
            f" {labels.min()} to {labels.max()}"
        )
    return [str(classes[label]) for label in labels]
