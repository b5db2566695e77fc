from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointwise.training import picture
from pointwise.training.picture import Picture, image_shape, read_image

COLOUR = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_pixels_come_back_as_they_were(tmp_path, suffix):
    for name, pixels in (("colour", COLOUR), ("grey", GREY)):
        path = tmp_path / f"{name}.{suffix}"
        Image.fromarray(pixels).save(path)
        np.testing.assert_array_equal(read_image(path), pixels.reshape(5, 7, -1))
        assert image_shape(path) == (5, 7, 3 if name == "colour" else 1)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_formats_that_lose_something(tmp_path, suffix):
    smooth = np.linspace(0, 255, 40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / f"a.{suffix}", quality=95)
    read = read_image(tmp_path / f"a.{suffix}")
    assert read.shape == (40, 30, 3)
    assert np.abs(read.astype(int) - smooth).mean() < 3


def test_an_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(COLOUR, -1))
    assert image_shape(tmp_path / "a.png") == (7, 5, 3)


def test_what_is_transparent_is_white(tmp_path):
    alpha = np.full((5, 7, 1), 255, dtype=np.uint8)
    alpha[0] = 0
    Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert (read[0] == 255).all()
    np.testing.assert_array_equal(read[1:], COLOUR[1:])


def test_palettes_and_deep_grey(tmp_path):
    Image.fromarray(GREY // 64 * 64).convert("P").save(tmp_path / "palette.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png"), np.repeat((GREY // 64 * 64)[:, :, None], 3, axis=2)
    )
    deep = GREY.astype(np.uint16) * 256 + 17
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[:, :, 0], GREY)
    assert image_shape(tmp_path / "deep.png") == (5, 7, 1)


def test_large_photographs_are_read_smaller(tmp_path):
    Image.fromarray(np.full((800, 1200, 3), 77, np.uint8)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (800, 1200, 3)
    assert read_image(tmp_path / "a.jpg", at_least=(150, 100)).shape == (200, 300, 3)


def test_files_that_are_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png: no such file"):
        read_image(tmp_path / "a.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png: is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png: is no image that can be read; readable are"):
        read_image(tmp_path / "text.png")


def test_damaged_files(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    for suffix in ("png", "jpg"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(ValueError, match=rf"cut\.{suffix}: .*truncated"):
            read_image(path)


def test_huge_images(tmp_path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    monkeypatch.setattr(picture, "MOST_PIXELS", 34)
    with pytest.raises(ValueError, match=r"a\.png: has 7 × 5 pixels, more than the 34 that are"):
        read_image(tmp_path / "a.png")


def test_pixels_without_a_range(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif: has floating-point pixels, whose range is"):
        read_image(tmp_path / "a.tif")
    # Pillow's integers of 32 bits, as an elevation map has them
    Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="has values 70000 to 70000, more than 16 bits hold"):
        read_image(tmp_path / "b.tif")


def test_a_picture_in_memory_or_in_a_file(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    for one in (Picture("a", array=COLOUR), Picture("a", file=tmp_path / "a.png")):
        np.testing.assert_array_equal(one.pixels(), COLOUR)
        assert one.shape() == (5, 7, 3)
