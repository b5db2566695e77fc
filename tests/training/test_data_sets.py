"""The recipes of the page on published data sets, on files of the same form made here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import plyfile
import pytest
import torch

from pointwise.training.data import feed
from pointwise.training.plan import plan
from pointwise.training.sources import load_data

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
RNG = np.random.default_rng(0)


def s3dis(folder: Path) -> None:
    for area in (1, 2, 3, 4, 5, 6):
        for room in ("office_1", "hallway_1"):
            objects = folder / f"Area_{area}" / room / "Annotations"
            objects.mkdir(parents=True)
            for name, z in (
                ("floor_1", 0.0),
                ("ceiling_1", 3.0),
                ("chair_1", 0.5),
                ("stairs_1", 1),
            ):
                xyz = RNG.random((200, 3)) * (4, 3, 0.1) + (0, 0, z)
                table = np.hstack([xyz, RNG.integers(0, 256, (200, 3))])
                np.savetxt(objects / f"{name}.txt", table, fmt="%.3f %.3f %.3f %d %d %d")
            np.savetxt(objects.parent / f"{room}.txt", table, fmt="%.3f %.3f %.3f %d %d %d")
        words = f"## Global alignment angle per disjoint space in Area_{area} ##\noffice_1 0\n"
        (folder / f"Area_{area}" / f"Area_{area}_alignmentAngle.txt").write_text(words)


def objects(path: Path, classes: int, **more: np.ndarray) -> None:
    labels = np.arange(2 * classes) % classes
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = RNG.normal(size=(len(labels), 64, 3)).astype(np.float32)
        for name, values in more.items():
            file[name] = values
        file["label"] = labels.astype(np.uint8)[:, None] if "normal" in more else labels


def scanobjectnn(folder: Path) -> None:
    for part in ("training", "test"):
        mask = np.where(RNG.random((30, 64)) < 0.3, -1, 1)
        file = f"{part}_objectdataset_augmentedrot_scale75.h5"
        objects(folder / "main_split" / file, 15, mask=mask)


def modelnet40(folder: Path) -> None:
    inner = folder / "modelnet40_ply_hdf5_2048"
    for file in ("ply_data_train0", "ply_data_train1", "ply_data_test0"):
        normal = RNG.normal(size=(80, 64, 3)).astype(np.float32)
        objects(inner / f"{file}.h5", 40, normal=normal)
        (inner / f"{file}_id2file.json").write_text("[]")
    names = "\n".join(f"shape{i}" for i in range(40))
    (inner / "shape_names.txt").write_text(names + "\n")
    (inner / "train_files.txt").write_text("data/modelnet40_ply_hdf5_2048/ply_data_train0.h5\n")


def semantickitti(folder: Path) -> None:
    for sequence in range(11):
        inner = folder / f"{sequence:02}"
        (inner / "velodyne").mkdir(parents=True)
        (inner / "labels").mkdir()
        for name in ("calib.txt", "poses.txt", "times.txt"):
            (inner / name).write_text("0.1 0.2 0.3 0.4 0.5 0.6\n" * 4)
        for sweep in range(2):
            table = np.hstack([RNG.normal(0, 10, (300, 3)), RNG.random((300, 1))]).astype("<f4")
            table.tofile(inner / "velodyne" / f"{sweep:06}.bin")
            RNG.choice([0, 10, 40, 70, 252], 300).astype("<u4").tofile(
                inner / "labels" / f"{sweep:06}.label"
            )


def dales(folder: Path) -> None:
    kinds = [*((axis, "f4") for axis in "xyz"), ("intensity", "i4"), ("sem_class", "i4"),
             ("ins_class", "i4")]  # fmt: skip
    for part, tiles in (("train", 4), ("test", 2)):
        (folder / "DALESObjects" / part).mkdir(parents=True)
        for tile in range(tiles):
            table = np.zeros(400, kinds)
            for axis in "xyz":
                table[axis] = RNG.random(400) * 50
            table["sem_class"] = np.arange(400) % 9
            element = plyfile.PlyElement.describe(table, "testing")
            plyfile.PlyData([element]).write(
                folder / "DALESObjects" / part / f"51{tile}5_54395_new.ply"
            )


SETS: dict[str, tuple[Callable[[Path], None], str, int, tuple[int, int], set[str]]] = {
    # name: maker, task, classes, clouds to learn from (validation included) and to test on, names
    "s3dis": (s3dis, "segmentation", 4, (10, 2), {"ceiling", "floor", "chair", "clutter"}),
    "scanobjectnn": (scanobjectnn, "classification", 15, (30, 30), {"bag", "shelf", "toilet"}),
    "modelnet40": (modelnet40, "classification", 40, (160, 80), {"shape0", "shape39"}),
    "semantickitti": (semantickitti, "segmentation", 4, (20, 2), {"car", "road", "moving-car"}),
    "dales": (dales, "segmentation", 8, (4, 2), {"ground", "power lines", "buildings"}),
}


def recipe(name: str) -> list[str]:
    (line,) = re.findall(rf"^pointwise train (.* -o {name})$", PAGE.read_text("utf-8"), re.M)
    return shlex.split(line)


@pytest.mark.parametrize("name", SETS)
def test_the_recipe_reads_what_is_published(name, tmp_path, monkeypatch):
    make, task, count, sizes, names = SETS[name]
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = recipe(name)
    first = next(i for i, word in enumerate(words) if word.startswith("-"))
    test = [words[words.index("--test") + 1]] if "--test" in words else []
    with_notes = name in ("s3dis", "modelnet40", "semantickitti")
    if with_notes:
        with pytest.warns(UserWarning, match="taken for notes, not for clouds"):
            data = load_data(words[:first], test=test)
    else:
        data = load_data(words[:first], test=test)
    assert data.task == task
    assert (len(data.train) + len(data.validation), len(data.test)) == sizes
    run = plan(data, cell_size=0.5)
    assert len(run.recipe.classes) == count
    assert names <= set(run.recipe.classes.names)
    if name == "s3dis":
        assert {scan.group for scan in data.test} == {"Area_5"}
    if name == "semantickitti":
        assert {scan.group for scan in data.test} == {"08"}
    if name == "dales":
        assert set(np.unique(data.test[0].labels)) == {-1, *range(1, 9)}
        assert data.test[0].no_class == {0: (45, "unknown in DALES")}
        assert "instance" not in run.recipe.features.names
    batch = feed(run.recipe, data.train).example()
    with torch.no_grad():
        logits = run.network.eval()(*batch.inputs)
    assert logits.shape == (len(batch.labels), count)


def test_text_alone_is_still_clouds(tmp_path):
    from pointwise.training.sources import files_of

    (tmp_path / "a.txt").write_text("1 2 3\n")
    assert files_of(tmp_path) == [tmp_path / "a.txt"]
