"""One image: its pixels, in memory or in a file, and the name of its class."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointwise.extras import import_extra
from pointwise.messages import first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
MOST_PIXELS = 100_000_000  # a 100-megapixel image is 300 MB, and a bomb may claim far more
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # Pillow's names for deep grey
_GREY = ("1", "L", "LA", *_SIXTEEN_BITS)


@dataclass(frozen=True)
class Picture:
    """An image with its class (None where unknown) and, maybe, the group it must not leave.

    Pixels in memory are uint8 ``[H, W, 1 or 3]``; otherwise they are read from ``file`` on demand.
    """

    name: str
    label: str | None = None
    group: str = ""
    file: Path | None = None
    array: np.ndarray | None = None

    def pixels(self, at_least: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 ``[H, W, 1 or 3]``; not smaller than ``at_least`` (H, W), unless the image is."""
        if self.array is not None:
            return self.array
        assert self.file is not None
        return read_image(self.file, at_least)

    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels, of a file without reading its pixels."""
        if self.array is not None:
            height, width, channels = self.array.shape
            return height, width, channels
        assert self.file is not None
        return image_shape(self.file)


def read_image(path: str | Path, at_least: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of an image file, uint8 ``[H, W, 3]``, or ``[H, W, 1]`` of a grey one.

    Turned upright as a camera noted it; 16 bits become 8, and what is transparent becomes white.
    With ``at_least`` a large JPEG may come out at a half, a quarter or an eighth of its size, which
    is read several times faster, but not smaller than that. Raises ValueError or OSError, in one
    line that names the file.
    """
    ops = import_extra("PIL.ImageOps", "train")
    with _opened(Path(path)) as image:
        if at_least is not None:
            # Either way round, since the file may be lying on its side.
            image.draft(None, (max(at_least), max(at_least)))
        image.load()
        image = ops.exif_transpose(image)
        return _eight_bits(image)


def image_shape(path: str | Path) -> tuple[int, int, int]:
    """Height, width and channels (1 or 3) of an image file, from its header."""
    with _opened(Path(path)) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # taken with the camera on its side
            width, height = height, width
        return height, width, 1 if image.mode in _GREY else 3


def _eight_bits(image) -> np.ndarray:
    if image.mode in _SIXTEEN_BITS:
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"has values {deep.min()} to {deep.max()}, more than 16 bits hold")
        return (deep >> 8).astype(np.uint8)[:, :, None]
    if image.mode == "F":
        raise ValueError("has floating-point pixels, whose range is unknown; save it as 8 bits")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        grey = image.mode in ("LA", "La", "L")
        image = image.convert("RGBA")
        white = import_extra("PIL.Image", "train").new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("L" if grey else "RGB")
    image = image.convert("L" if image.mode in _GREY else "RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


@contextmanager
def _opened(path: Path) -> Iterator:
    """An image file with its header read; whatever goes wrong becomes one line that names it."""
    module = import_extra("PIL.Image", "train")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are checked here
            with module.open(path) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise ValueError(
                        f"has {width} × {height} pixels, more than the {MOST_PIXELS:,} that are"
                        " read; make it smaller"
                    )
                yield image
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except module.UnidentifiedImageError:
        raise ValueError(f"{path}: {_unreadable(path)}") from None
    except module.DecompressionBombError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # Pillow's readers raise a dozen types for a damaged file
        raise ValueError(f"{path}: {first_line(error)}") from error


def _unreadable(path: Path) -> str:
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    return f"is no image that can be read; readable are {', '.join(SUFFIXES)}"
