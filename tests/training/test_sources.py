from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toys import cloud, scene

from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan
from pointwise.training.sources import SURFACE_POINTS, files_of, load_data, read_clouds

RADHAR = Path(__file__).parents[2] / "../shared/data/radhar/radhar_train.npz"
BALL = Path(__file__).parents[2] / "../shared/data/ply/ballA.off"


def write(path: Path, scan: Scan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scan(scan, path)


def bare(seed: int) -> Scan:
    return Scan(np.random.default_rng(seed).normal(size=(30, 3)))


def stems(scans: list[Scan]) -> set[str]:
    return {scan.source.stem for scan in scans if scan.source}


def test_one_labelled_file_is_cut_in_space(tmp_path):
    write(tmp_path / "a.npz", scene(0))
    data = load_data([str(tmp_path / "a.npz")])
    assert data.task == "segmentation"
    counts = [sum(map(len, part)) for part in (data.train, data.validation, data.test)]
    assert sum(counts) == 2000
    assert counts[2] >= 0.25 * 2000
    assert 0 < counts[1] < counts[2] < counts[0]
    places = [
        scan.points[:, 0] for part in (data.train, data.validation, data.test) for scan in part
    ]
    for i, a in enumerate(places):
        for b in places[i + 1 :]:
            assert a.max() < b.min() or b.max() < a.min()


def test_files_are_held_out_whole(tmp_path):
    for i in range(8):
        write(tmp_path / "deep" / f"s{i}.npz", scene(i, 200))
    data = load_data([str(tmp_path)])
    parts = [stems(data.train), stems(data.validation), stems(data.test)]
    assert [len(part) for part in parts] == [5, 1, 2]
    assert len(set.union(*parts)) == 8


def test_names_of_parts_are_honoured(tmp_path):
    for name in ("train_0", "train_1", "train_2", "test_0", "val_0"):
        write(tmp_path / f"{name}.npz", scene(len(name), 200))
    data = load_data([str(tmp_path)])
    assert stems(data.train) == {"train_0", "train_1", "train_2"}
    assert stems(data.validation) == {"val_0"}
    assert stems(data.test) == {"test_0"}


def test_folders_named_by_class(tmp_path):
    for name in ("chair", "table"):
        for i in range(6):
            part = "test" if i == 5 else "train"
            write(tmp_path / name / part / f"{name}_{i}.ply", bare(i))
    data = load_data([str(tmp_path)])
    assert data.task == "classification"
    assert data.train[0].classes == {0: "chair", 1: "table"}
    assert stems(data.test) == {"chair_5", "table_5"}
    for scan in (*data.train, *data.test):
        assert scan.classes[scan.label] == scan.source.parent.parent.name


def test_test_wins_over_names_and_shares(tmp_path):
    for i in range(4):
        write(tmp_path / "a" / f"s{i}.npz", scene(i, 200))
    write(tmp_path / "b" / "train.npz", scene(9, 200))
    data = load_data([str(tmp_path / "a")], test=[str(tmp_path / "b")])
    assert stems(data.test) == {"train"}
    assert stems(data.train) | stems(data.validation) == {"s0", "s1", "s2", "s3"}


def test_points_without_labels_are_not_for_training(tmp_path):
    write(tmp_path / "a.npz", scene(0))
    write(tmp_path / "b.npz", bare(0))
    assert stems(load_data([str(tmp_path)]).train) == {"a"}


@pytest.mark.skipif(not BALL.exists(), reason="the real data are not here")
def test_meshes_become_clouds():
    (scan,) = read_clouds(BALL)
    assert len(scan) == SURFACE_POINTS


@pytest.mark.rare
@pytest.mark.skipif(not RADHAR.exists(), reason="the real data are not here")
def test_recordings_are_held_out_whole():
    data = load_data([str(RADHAR)])
    assert data.task == "classification"
    groups = [{s.group for s in part} for part in (data.train, data.validation, data.test)]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert len(data.test) >= 0.24 * sum(map(len, (data.train, data.validation, data.test)))


@pytest.mark.rare
def test_rooms_are_different_in_each_part():
    data = load_data(["rooms"], rooms=2)
    assert data.task == "segmentation"
    assert [len(part) for part in (data.train, data.validation, data.test)] == [2, 4, 8]
    groups = [scan.group for part in (data.train, data.validation, data.test) for scan in part]
    assert len(set(groups)) == 14


def test_nothing_labelled(tmp_path):
    write(tmp_path / "a.npz", bare(0))
    with pytest.raises(ValueError, match="no labels in the data"):
        load_data([str(tmp_path)])


def test_wanted_task_has_no_data(tmp_path):
    write(tmp_path / "a.npz", scene(0))
    with pytest.raises(ValueError, match=r"no labelled classification data in .*a.npz"):
        load_data([str(tmp_path / "a.npz")], task="classification")


def test_test_without_labels(tmp_path):
    write(tmp_path / "a.npz", scene(0))
    write(tmp_path / "b.npz", bare(0))
    with pytest.raises(ValueError, match=r"no labelled segmentation data in --test .*b.npz"):
        load_data([str(tmp_path / "a.npz")], test=[str(tmp_path / "b.npz")])


def test_both_kinds_of_labels(monkeypatch, tmp_path):
    (tmp_path / "a.npz").touch()
    monkeypatch.setattr(
        "pointwise.training.sources.read_clouds", lambda file, columns: [scene(0), cloud(0, 0)]
    )
    with pytest.raises(ValueError, match="some have labelled points; give --task"):
        load_data([str(tmp_path / "a.npz")])


def test_wrong_options():
    with pytest.raises(ValueError, match="--task must be segmentation or classification, got 'x'"):
        load_data(["rooms"], task="x")
    with pytest.raises(ValueError, match="--split must be group or space, got 'x'"):
        load_data(["rooms"], split="x")


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        files_of(tmp_path / "nowhere")
    (tmp_path / "readme.md").touch()
    with pytest.raises(ValueError, match="holds no readable file; readable are"):
        files_of(tmp_path)


def test_columns_without_a_header(tmp_path):
    whole = scene(0)
    table = np.column_stack([whole.points, whole.labels])
    np.savetxt(tmp_path / "a.txt", table[:, [3, 0, 1, 2]])
    data = load_data([str(tmp_path)], columns="label x y z")
    found = np.concatenate([scan.labels for scan in (*data.train, *data.validation, *data.test)])
    assert sorted(found) == sorted(whole.labels)
