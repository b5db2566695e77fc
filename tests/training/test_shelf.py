from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import cloud, scene

from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan
from pointwise.training import shelf as shelves
from pointwise.training import sources
from pointwise.training.augment import Augmentation
from pointwise.training.data import RandomBlocks, feed
from pointwise.training.plan import plan
from pointwise.training.shelf import MEMORY, InFolder, Shelf
from pointwise.training.sources import Data, load_data

HERE = Path(__file__).parent


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "cache")


def batches(scans, network, memory, workers=0, **changes):
    data = Data("segmentation" if scans[0].labels is not None else "classification", scans, [], [])
    recipe = replace(plan(data, network=network, memory=memory).recipe, **changes)
    fed = feed(
        recipe, scans, scans, augmentation=Augmentation(), workers=workers, seed=3, memory=memory
    )
    assert fed.validation is not None
    return [*fed.train, *fed.validation]


def with_strays(scan: Scan) -> Scan:
    scan.points[7] += 1e5
    return scan


@pytest.mark.parametrize("spacing", [0.0, 0.5])
@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_from_files_are_those_from_memory(shelf, spacing, workers):
    scans = [scene(0), with_strays(scene(1))]
    own = [shelf.scan(scan) for scan in scans]
    cut = {"spacing": spacing, "block": 3.0, "margin": 0.4}
    here = batches(scans, "TinyPoints", MEMORY, **cut)
    there = batches(own, "TinyPoints", shelf, workers, **cut)
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("grown", [1.0, 10.0])  # brought to one size where they differ
def test_clouds_from_files_are_those_from_memory(shelf, grown):
    scans = [cloud(label, i, 100 + i) for label in (0, 1) for i in range(5)]
    for i, scan in enumerate(scans):
        scan.points *= grown**i
    own = [shelf.scan(scan) for scan in scans]
    here, there = batches(scans, "TinyClouds", MEMORY), batches(own, "TinyClouds", shelf)
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_only_paths_are_sent_to_other_processes(shelf):
    scans = [shelf.scan(scene(0, 20_000))]
    recipe = plan(Data("segmentation", scans, [], []), network="TinyPoints", block=3.0).recipe
    blocks = RandomBlocks(recipe, scans, None, seed=0, memory=shelf)
    sent = pickle.dumps(blocks)
    assert len(sent) < 20_000
    a, b = blocks[3], pickle.loads(sent)[3]
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_scan_comes_back_whole(shelf):
    scan = replace(
        scene(0), group="west", label=None, source=Path("a.las"), assumed=("metres",),
        no_class={0: (3, "never classified")},
    )  # fmt: skip
    found = shelf.scan(scan)
    assert isinstance(found.points, np.memmap)
    assert found.points.dtype == scan.points.dtype
    for name in ("classes", "name", "group", "source", "assumed", "no_class", "label"):
        assert getattr(found, name) == getattr(scan, name)
    assert list(found.fields) == list(scan.fields)
    for name, values in scan.fields.items():
        np.testing.assert_array_equal(found.fields[name], values)
    np.testing.assert_array_equal(found.labels, scan.labels)
    # What is mapped already is known by its file; a change of anything is another scan.
    count = len(list(shelf.folder.iterdir()))
    shelf.scan(scan)
    assert len(list(shelf.folder.iterdir())) == count
    shelf.scan(replace(found, labels=np.where(found.labels == 10, 20, found.labels)))
    assert len(list(shelf.folder.iterdir())) == count + 1


def test_files_are_read_once_and_again_when_they_change(shelf, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(4):
        write_scan(scene(i), folder / f"{i}.npz")
    with np.load(folder / "0.npz") as archive:
        arrays = dict(archive)
    arrays["points"][5, 2] = np.nan
    np.savez(folder / "0.npz", **arrays)
    read, calls = sources.read_clouds, []

    def counted(file, columns=None):
        calls.append(file.name)
        return read(file, columns)

    monkeypatch.setattr(sources, "read_clouds", counted)

    def load() -> Data:
        with pytest.warns(UserWarning, match=r"0\.npz: dropped 1 of 2000 points"):
            return load_data([str(folder)], memory=shelf)  # said each time

    first, second = load(), load()
    assert calls == ["0.npz", "1.npz", "2.npz", "3.npz"]
    for part in ("train", "validation", "test"):
        for a, b in zip(getattr(first, part), getattr(second, part), strict=True):
            np.testing.assert_array_equal(a.points, b.points)
    os.utime(folder / "2.npz", ns=(1, 1))
    load()
    assert calls[4:] == ["2.npz"]


def test_a_lone_scene_is_cut_into_files(shelf, tmp_path):
    write_scan(scene(0, 20_000), tmp_path / "scene.npz")
    data = load_data([str(tmp_path / "scene.npz")], memory=shelf)
    for scans in (data.train, data.validation, data.test):
        assert all(isinstance(scan.points, np.memmap) for scan in scans)


def test_what_two_make_at_once_is_there_once(shelf):
    def make():
        shelves._write(place, {"points": np.arange(3)}, {})  # the other one, in the meantime
        return {"points": np.arange(3)}

    place = shelf.hold(["something"], {}, lambda: {"points": np.arange(2)}).folder
    (place / "about.json").unlink()
    (place / "0.npy").unlink()
    place.rmdir()
    held = shelf.hold(["something"], {}, make)
    assert held.arrays["points"].tolist() == [0, 1, 2]
    assert [found.name for found in shelf.folder.iterdir()] == [place.name]


def test_what_fails_leaves_nothing(shelf):
    with pytest.raises(ValueError, match="Object arrays"):
        shelf.hold(["something"], {}, lambda: {"points": np.array([None])})
    assert list(shelf.folder.iterdir()) == []


def test_a_damaged_file_is_named(shelf):
    held = shelf.hold(["something"], {}, lambda: {"points": np.zeros(1000)})
    file = held.folder / "0.npy"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"{held.folder} is damaged \(.*; delete it$"):
        dict(held.arrays)
    with pytest.raises(FileNotFoundError):
        dict(InFolder(shelf.folder / "gone").arrays)


def test_nothing_is_warned_of_mapped_points(shelf):
    scan = shelf.scan(scene(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch's, of arrays that cannot be written to
        batches([scan], "TinyPoints", shelf, spacing=0.5)


def little_memory(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(HERE / "little_memory.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts a process's own memory apart")
def test_memory_does_not_grow_with_the_number_of_scans(tmp_path):
    folder, cache = tmp_path / "data", tmp_path / "cache"
    folder.mkdir()
    write_scan(scene(0, 300_000), folder / "00.npz")
    for i in range(1, 8):
        os.link(folder / "00.npz", folder / f"{i:02}.npz")
    limit = 75_000_000  # bytes; the scans' own arrays are 8 times 12 million, without copies
    few, all_of_them = (little_memory(folder, count, cache, limit) for count in (3, 8))
    assert few.returncode == all_of_them.returncode == 0, few.stderr + all_of_them.stderr
    assert int(all_of_them.stdout) < int(few.stdout) + 10_000_000  # less than one scan more
    without = little_memory(folder, 8, "-", limit)
    assert without.returncode == 1
    assert "memory" in without.stderr
