"""Files appear whole or not at all, also where several threads write one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pointwise.atomic import replacing


def test_threads_that_write_one_path(tmp_path):
    path, together = tmp_path / "a.txt", Barrier(4)

    def write(letter):
        for _ in range(20):
            together.wait()
            with replacing(path) as part:
                part.write_text(letter * 1000)
            assert len(set(path.read_text())) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert len(path.read_text()) == 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as part:
            part.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_links_and_permissions_stay(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    with replacing(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)
    mask = os.umask(0o027)
    try:
        with replacing(tmp_path / "b.txt") as part:
            part.write_text("new")
    finally:
        os.umask(mask)
    assert (tmp_path / "b.txt").stat().st_mode & 0o777 == 0o640


def test_long_names(tmp_path):
    for stem in ("a" * 251, "é" * 125, "😀" * 62):
        with replacing(tmp_path / f"{stem}.txt") as part:
            assert part.suffix == ".txt"
            part.write_text("new")
        assert (tmp_path / f"{stem}.txt").read_text() == "new"
