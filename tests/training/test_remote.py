from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
from short_runs import new_run
from toys import scene

from pointwise.cloud.files import read_scan, write_scan
from pointwise.training import labelling, remote
from pointwise.training.labelling import How, Job, label_anywhere, label_file, place_anywhere
from pointwise.training.survey import Surroundings, find_place


@pytest.fixture
def store():
    """An object store in this process's memory, with three tiles and what is no tile."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    system.pipe("/bucket/notes.md", b"no scan")
    system.pipe("/bucket/tiles/.hidden.laz", b"")
    yield system
    system.store.clear()


def put(store, place: str, seed: int, folder: Path) -> Path:
    local = folder / Path(place).name
    write_scan(scene(seed), local)
    store.put_file(str(local), place)
    return local


def test_a_url_is_kept_as_a_path():
    path = Path("s3://bucket/tiles") / "a.laz"
    assert remote.url_of(path) == "s3://bucket/tiles/a.laz"
    assert (path.name, path.suffix) == ("a.laz", ".laz")
    assert path.relative_to(Path("s3://bucket")) == Path("tiles/a.laz")
    assert remote.url_of(Path("file:///data/a.laz")) == "file:///data/a.laz"
    assert remote.url_of(Path("abfs://box@account/a.laz")) == "abfs://box@account/a.laz"
    for local in ("a.laz", "/data/a.laz", "c:/data/a.laz", "data/s3:/a.laz"):
        assert remote.url_of(Path(local)) is None


def test_a_store_is_listed(store, tmp_path):
    put(store, "/bucket/tiles/b.laz", 0, tmp_path)
    put(store, "/bucket/tiles/west/a.ply", 1, tmp_path)
    bucket = Path("memory://bucket")
    tiles = [bucket / "tiles/b.laz", bucket / "tiles/west/a.ply"]
    assert remote.files_of(bucket) == tiles
    assert remote.files_of(tiles[0]) == tiles[:1]
    assert remote.present([*tiles, bucket / "tiles/c.laz"], bucket) == set(tiles)
    assert remote.is_folder(bucket / "tiles")
    assert not remote.is_folder(tiles[0])
    assert remote.size_of(tiles[0]) == store.size("/bucket/tiles/b.laz") > 0
    assert remote.size_of(bucket / "gone.laz") == 0
    with pytest.raises(FileNotFoundError, match=r"^memory://bucket/gone does not exist, or"):
        remote.files_of(bucket / "gone")
    store.pipe("/papers/notes.md", b"no scan")
    with pytest.raises(ValueError, match=r"^memory://papers holds no readable file"):
        remote.files_of(Path("memory://papers"))


def test_a_tile_in_a_store_is_labelled_as_on_a_disk(store, tmp_path):
    run = new_run()
    places = ["/bucket/one/a.laz", "/bucket/two/a.laz", "/bucket/b.ply"]
    local = []
    for seed, place in enumerate(places):
        (tmp_path / str(seed)).mkdir()
        local.append(put(store, place, seed, tmp_path / str(seed)))
    frame = find_place(local[0]).frame
    files = [Path(f"memory:/{place}") for place in places]
    place = place_anywhere(files[0])
    assert place.frame == frame
    assert place.file == files[0]

    there = Job(files[0], Path("memory://out/west/a.laz"), Surroundings(frame, tuple(files[1:])))
    here = Job(local[0], tmp_path / "a.laz", Surroundings(frame, tuple(local[1:])))
    how = How(confidence=True, votes=1)
    found, expected = label_anywhere(run, there, how), label_file(run, here, how)
    assert store.cat("/out/west/a.laz") == here.target.read_bytes()
    assert found.target == there.target
    assert found.counts == expected.counts
    # From a store to a disk, and back.
    label_anywhere(run, Job(files[2], tmp_path / "new" / "b.ply"), How(votes=1))
    label_anywhere(run, Job(local[2], Path("memory://out/b.ply")), How(votes=1))
    assert store.cat("/out/b.ply") == (tmp_path / "new" / "b.ply").read_bytes()


def test_where_files_grow_a_half_one_has_no_name(tmp_path, monkeypatch):
    """A disk, unlike an object store, shows what is not whole: a kill must leave no such file."""
    from fsspec.implementations.local import LocalFileSystem

    (tmp_path / "new").write_text("new")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.ply").write_text("old")
    put, seen = LocalFileSystem.put_file, []

    def halfway(self, local, place, **more):
        put(self, local, place, **more)
        seen.append(Path(place).name)
        assert (tmp_path / "out" / "a.ply").read_text() == "old"

    monkeypatch.setattr(LocalFileSystem, "put_file", halfway)
    remote.send(tmp_path / "new", Path(f"file://{tmp_path}/out/a.ply"))
    assert seen[0].startswith(".a.ply.")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.ply"]
    assert (tmp_path / "out" / "a.ply").read_text() == "new"


def test_what_is_wrong_with_a_copy_is_said_of_the_file(store, tmp_path, monkeypatch):
    run, target = new_run(), Path("memory://out/a.ply")
    store.pipe("/bucket/a.laz", b"this is no LAZ file")
    with pytest.raises(ValueError, match=r"^memory://bucket/a.laz: ") as said:
        label_anywhere(run, Job(Path("memory://bucket/a.laz"), target), How())
    assert "pointwise-" not in str(said.value)
    with pytest.raises(OSError, match=r"^memory://bucket/gone.laz: FileNotFoundError"):
        label_anywhere(run, Job(Path("memory://bucket/gone.laz"), target), How())
    broken = scene(0)
    put(store, "/bucket/b.npz", 0, tmp_path)
    with np.load(tmp_path / "b.npz") as archive:
        arrays = dict(archive)
    arrays["points"][5] = np.nan
    np.savez(tmp_path / "b.npz", **arrays)
    store.put_file(str(tmp_path / "b.npz"), "/bucket/b.npz")
    with pytest.warns(UserWarning, match=r"^memory://bucket/b.npz: dropped 1 of 2000 points"):
        label_anywhere(run, Job(Path("memory://bucket/b.npz"), target), How(votes=1))
    assert len(broken) == 2000

    # What fails on its way leaves nothing, neither there nor here.
    def fail(*_):
        raise ValueError("no")

    monkeypatch.setattr(labelling, "label_file", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(ValueError, match=r"^no$"):
        label_anywhere(run, Job(Path("memory://bucket/b.npz"), Path("memory://out/c.ply")), How())
    assert not store.exists("/out/c.ply")
    assert not list((tmp_path / "temporary").iterdir())


def test_a_store_of_an_unknown_kind_is_refused_in_one_line():
    with pytest.raises(OSError, match=r"^nowhere://bucket: ValueError: Protocol not known"):
        remote.files_of(Path("nowhere://bucket"))


def test_neither_ray_nor_fsspec_is_imported_with_the_command_line():
    code = (
        "import sys, pointwise, pointwise.cli, pointwise.cli.label;"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'ray', 'fsspec'}))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_a_scan_that_was_fetched_is_read(store, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local = put(store, "/bucket/a.laz", 3, tmp_path)
        copy = remote.fetch(Path("memory://bucket/a.laz"), tmp_path)
    np.testing.assert_array_equal(read_scan(copy).points, read_scan(local).points)
    assert remote.fetch(local, tmp_path) == local
