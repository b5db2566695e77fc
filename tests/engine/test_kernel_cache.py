"""The kernels' disk cache: used when it is whole and ours, passed over and replaced when not."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from pointwise.engine.cpu import kernel_cache
from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Layout

SET = Layout("Set", "*out more")


def _set(arguments, program, thread):
    own = SET(arguments)
    array(own.out, 1, np.int64)[0] = 41 + own.more


def _run(function=_set) -> int:
    """Runs a kernel that this process has not seen; returns how often it came from the cache."""
    fresh = kernel(function, "_set")
    out = np.zeros(1, np.int64)
    launch(fresh, SET(out=out, more=1), 1)
    assert out[0] == 42
    return fresh.compiled._cache_hits


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache for what is compiled from here on."""
    _run()  # what launches a kernel is compiled, and kept elsewhere
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def entry(folder) -> Path:
    """The one file that a kernel has left there."""
    assert _run() == 0
    (file,) = folder.rglob("*.*")
    return file


def test_a_kernel_is_read_the_second_time(entry):
    assert _run() == 1


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\0",
    "a bit of machine code": lambda content: content[:-500] + bytes([content[-500] ^ 1])
    + content[-499:],
    "a bit of the digest": lambda content: content[:60] + bytes([content[60] ^ 8]) + content[61:],
    "another pickle": lambda content: b"\x80\x04K\x01.",
    "of other sources": lambda content: content[:20] + bytes(32) + content[52:],
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_compiled_again_and_replaced(entry, damage, capfd):
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert _run() == 0
    assert _run() == 1
    assert len(list(entry.parent.iterdir())) == 1
    assert capfd.readouterr().err == ""


def test_what_does_not_load_is_compiled_again(entry, monkeypatch):
    """A whole file, but of something that this Numba cannot make a kernel of."""

    def fail(*arguments):
        raise TypeError("another payload")

    with monkeypatch.context() as patch:
        patch.setattr(kernel_cache._Place, "rebuild", fail)
        assert _run() == 0
    assert _run() == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners of files")
def test_what_others_could_have_written_is_not_read(entry, monkeypatch):
    entry.chmod(0o666)
    assert _run() == 0
    assert entry.stat().st_mode & 0o022 == 0
    assert _run() == 1
    status = entry.stat()
    assert kernel_cache._is_trusted(status, status.st_uid)
    foreign = os.stat_result((0o100644, 1, 1, 1, 12345, 1, 1, 1, 1, 1))
    assert not kernel_cache._is_trusted(foreign, status.st_uid)
    monkeypatch.setattr(kernel_cache, "_is_trusted", lambda *given: False)
    monkeypatch.setattr(kernel_cache.pickle, "loads", None)  # nor looked at
    assert _run() == 0


@pytest.mark.parametrize("why", ["no folder", "no file"])
def test_a_cache_that_cannot_be_written_is_one_warning(why, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_cache, "_warned", False)

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    if why == "no folder":
        monkeypatch.setattr(kernel_cache._Place, "_locator_classes", [])
    else:
        monkeypatch.setattr(kernel_cache, "_for_me_to_write", refuse)
    with pytest.warns(RuntimeWarning, match=r"cannot be kept .*set NUMBA_CACHE_DIR") as seen:
        assert [_run(), _run()] == [0, 0]
    assert len(seen) == 1
    assert not list(folder.rglob("*.*"))


def test_a_variable_that_names_a_file_is_passed_over(folder):
    folder.write_text("a file")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run()  # in the next best place: beside this file


def test_no_user_means_no_folder_of_that_name(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert kernel_cache._UserWide.from_function(_set, __file__) is None


TOGETHER = """
import sys
import numpy as np
from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Layout

SET = Layout("Set", "*out more")

@kernel
def together(arguments, program, thread):
    own = SET(arguments)
    array(own.out, 1, np.int64)[0] = 41 + own.more

out = np.zeros(1, np.int64)
launch(together, SET(out=out, more=1), 1)
print(out[0])
"""


@pytest.mark.slow
def test_processes_that_compile_at_once(tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    variables = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "together.py"], cwd=tmp_path, env=variables, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)
    ]  # fmt: skip
    for process in started:
        assert process.communicate(timeout=120) == ("42\n", "")
    names = [file.name for file in (tmp_path / "cache").rglob("*.*")]
    assert all(name.endswith(".nbc") and "part" not in name for name in names)
