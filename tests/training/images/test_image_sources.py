from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import pictures, scene, stripes

from pointwise.cloud.files import write_scan
from pointwise.training.data_kind import kind_of
from pointwise.training.images.sources import (
    digits,
    hold_out_images,
    in_order,
    load_images,
    read_npz,
    read_pictures,
)


def write(path: Path, label: int = 0, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stripes(label, seed)).save(path)


def of(parts) -> dict[str, Counter]:
    return {
        part: Counter(picture.label for picture in getattr(parts, part))
        for part in ("train", "validation", "test")
    }


def test_folders_are_classes(tmp_path):
    for name in ("cat", "dog"):
        for i in range(20):
            write(tmp_path / name / f"{i}.png", seed=i)
    data = load_images([str(tmp_path)])
    assert of(data)["test"] == {"cat": 5, "dog": 5}
    assert of(data)["validation"] == {"cat": 3, "dog": 3}
    assert of(data)["train"] == {"cat": 12, "dog": 12}
    assert data.classes() == ["cat", "dog"]
    assert all(picture.label in str(picture.file) for picture in data.train)
    names = [p.name for part in (data.train, data.validation, data.test) for p in part]
    assert len(set(names)) == 40


@pytest.mark.parametrize("layout", ["{part}/{name}", "{name}/{part}"])
def test_folders_of_parts_are_honoured(tmp_path, layout):
    for name in ("cat", "dog"):
        for part, count in (("train", 4), ("val", 2), ("Test", 3)):
            for i in range(count):
                write(tmp_path / layout.format(part=part, name=name) / f"train_{i}.png")
    data = load_images([str(tmp_path)])
    assert {part: set(counts.values()) for part, counts in of(data).items()} == {
        "train": {4},
        "validation": {2},
        "test": {3},
    }
    assert data.classes() == ["cat", "dog"]


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus"):
        for i in range(8):
            write(tmp_path / name / f"{i}.png")
    assert load_images([str(tmp_path)]).classes() == ["bus", "train"]


def test_images_without_a_class_are_left_out(tmp_path):
    for name in ("cat", "dog"):
        for i in range(4):
            write(tmp_path / "train" / name / f"{i}.png")
    write(tmp_path / "test" / "1.png")
    data = load_images([str(tmp_path)])
    assert sum(map(len, (data.train, data.validation, data.test))) == 8


def save(path: Path, images, **more) -> str:
    np.savez(path, images=images, **more)
    return str(path)


def test_an_npz(tmp_path):
    images = np.stack([stripes(i % 2, i) for i in range(24)])
    labels = np.arange(24) % 3
    path = save(tmp_path / "a.npz", images, labels=labels, classes=["x", "y", "z"])
    data = load_images([path])
    assert of(data)["test"] == {"x": 2, "y": 2, "z": 2}
    for picture in data.train:
        place = int(picture.name.removeprefix("a[").removesuffix("]"))
        assert picture.label == "xyz"[labels[place]]
        np.testing.assert_array_equal(picture.pixels(), images[place])


def test_npz_files_that_say_their_part(tmp_path):
    images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
    for name in ("train", "test"):
        save(tmp_path / f"{name}.npz", images, labels=labels)
    data = load_images([str(tmp_path)])
    assert {p.name[:4] for p in data.test} == {"test"}
    assert len(data.test) == 6


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 1, 5, 6)])
def test_layouts_of_grey(tmp_path, shape):
    images = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    found = read_npz(Path(save(tmp_path / "a.npz", images.reshape(shape))))
    np.testing.assert_array_equal(np.stack([p.pixels()[:, :, 0] for p in found]), images)


def test_layouts_of_colour(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(4, 5, 6, 3), dtype=np.uint8)
    alpha = np.concatenate([images, images[..., :1]], axis=3)
    unit = images.astype(np.float32) / 255
    for array in (images, images.transpose(0, 3, 1, 2), alpha, unit):
        found = read_npz(Path(save(tmp_path / "a.npz", array)))
        np.testing.assert_array_equal(np.stack([p.pixels() for p in found]), images)


GOOD = np.zeros((4, 5, 5), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((4, 5))}, r"images must be \[N, H, W\], .* got \[4, 5\]"),
        ({"images": np.zeros((0, 5, 5))}, r"images must be .* got \[0, 5, 5, 1\]"),
        ({"images": GOOD + 2.5}, "images of float64 must lie between 0 and 1, got 2.5 to 2.5"),
        ({"images": GOOD * np.nan}, ".*must lie between 0 and 1, got nan"),
        ({"images": GOOD.astype(np.int16)}, "images must be uint8, .* got int16"),
        ({"images": GOOD, "labels": [0, 1]}, r"labels must be .* \[4\], got int64 \[2\]"),
        ({"images": GOOD, "labels": [0.5] * 4}, r"labels must be .*, got float64"),
        (
            {"images": GOOD, "labels": [0, 1, 2, 3], "classes": ["a", "b"]},
            "labels must lie between 0 and 1, which classes has names for, got 0 to 3",
        ),
        ({"images": GOOD, "group": [0]}, r"group must be \[4\], got \[1\]"),
        ({"pixels": GOOD}, r"has no array 'images' \(it has: pixels\)"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}"):
        read_npz(tmp_path / "a.npz")


def test_a_small_npz_that_unpacks_to_much(tmp_path, monkeypatch):
    path, images = tmp_path / "a.npz", np.zeros((20, 30, 30), np.uint8)
    np.savez_compressed(path, images=images, more=np.zeros(10**6))
    monkeypatch.setattr("pointwise.cloud.files.unpack.LARGE", 10_000)
    assert len(read_npz(path)) == 20  # what is not used is not unpacked
    monkeypatch.setattr("pointwise.cloud.files.unpack.RATIO", 10)
    with pytest.raises(ValueError, match=r"a\.npz: array 'images' would unpack .* MB to .* GB"):
        read_npz(path)


def test_broken_npz(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"a\.npz: not an NPZ file, which is a ZIP of arrays"):
        read_npz(path)
    np.savez_compressed(path, images=np.random.default_rng(0).integers(0, 9, size=(50, 9, 9)))
    damaged = bytearray(path.read_bytes())
    damaged[200:400] = bytes(200)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.npz: "):
        read_npz(path)


def test_the_split_is_even_and_the_seed_decides():
    all_of_them = pictures(40)
    kept, held = hold_out_images(all_of_them, 0.25, seed=0)
    assert Counter(p.label for p in held) == {"lying": 10, "standing": 10}
    assert {p.name for p in kept} | {p.name for p in held} == {p.name for p in all_of_them}
    again, other = (hold_out_images(all_of_them, 0.25, seed=seed)[1] for seed in (0, 1))
    assert [p.name for p in again] == [p.name for p in held] != [p.name for p in other]


def test_groups_are_never_divided(tmp_path):
    images, people = np.zeros((60, 4, 4), np.uint8), np.arange(60) // 3
    path = save(tmp_path / "a.npz", images, labels=people % 2, group=people)
    data = load_images([path])
    parts = [{p.group for p in part} for part in (data.train, data.validation, data.test)]
    assert len(parts[2]) >= 4
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20


def test_numbers_are_in_the_order_of_their_values():
    assert in_order({"10", "2", "1"}) == ["1", "2", "10"]
    assert in_order({"b10", "b9", "a"}) == ["a", "b9", "b10"]


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_the_built_in_digits():
    found = digits()
    assert len(found) == 1797
    assert {p.label for p in found} == set("0123456789")
    pixels = np.stack([p.pixels() for p in found])
    assert pixels.shape == (1797, 8, 8, 1)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(load_images(["digits"]).classes()) == 10


def test_nothing_to_learn_from(tmp_path):
    write(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"no classes in .*; sort the images into a folder for"):
        load_images([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_pictures(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no images; readable are \.png"):
        read_pictures(tmp_path / "empty")
    with pytest.raises(ValueError, match="--hold-out must lie between 0 and 1, got 1"):
        load_images([str(tmp_path)], held_out=1)


def test_too_few_to_hold_out(tmp_path):
    for name in ("cat", "dog"):
        write(tmp_path / name / "1.png")
    with pytest.raises(ValueError, match="too few images to hold some out of each class"):
        load_images([str(tmp_path)])
    with pytest.raises(ValueError, match="no labelled images in --test"):
        load_images([str(tmp_path)], test=[str(tmp_path / "cat")])


def test_what_data_are(tmp_path):
    assert kind_of(["rooms"]) == "clouds"
    assert kind_of(["digits"]) == "images"
    images = tmp_path / "images"
    write(images / "cat" / "1.png")
    (images / "cat" / "1.txt").write_text("a cat")
    assert kind_of([str(images)]) == "images"
    clouds = tmp_path / "clouds"
    clouds.mkdir()
    write_scan(scene(0, 50), clouds / "a.npz")
    (clouds / "b.txt").write_text("0 0 0\n")
    write(clouds / "shot.png")
    (clouds / "c.txt").write_text("0 0 0\n")
    with pytest.raises(ValueError, match=r"holds clouds, such as a\.npz, and images, such as shot"):
        kind_of([str(clouds)])
    (clouds / "a.npz").unlink()
    assert kind_of([str(clouds)]) == "clouds"
    assert kind_of([save(tmp_path / "i.npz", GOOD)]) == "images"
    with pytest.raises(ValueError, match=r"cannot be learned together: rooms \(clouds\), digits"):
        kind_of(["rooms", "digits"])
    with pytest.raises(ValueError, match=r"1\.png is one image, which has no class; give a folder"):
        kind_of([str(images / "cat" / "1.png")])
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        kind_of([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds nothing to learn from; readable are images"):
        kind_of([str(tmp_path / "empty")])
