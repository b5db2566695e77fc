"""Memory that is used again: it must never serve two results at once."""

from __future__ import annotations

import gc
import mmap
import sys
from pathlib import Path

import pytest
import torch

from pointwise.engine.cpu import memory
from pointwise.engine.cpu.memory import empty, empty_image

LARGE = (3, 1 << 18)  # 3 MB of float32


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Each test starts without free blocks."""
    gc.collect()
    monkeypatch.setattr(memory, "_free", {})
    monkeypatch.setattr(memory, "_peak", 0)


def test_a_dropped_result_is_followed_by_one_in_its_place():
    first = empty(LARGE, torch.float32).fill_(1)
    address = first.data_ptr()
    del first
    assert empty(LARGE, torch.float32).data_ptr() == address


def test_views_keep_their_memory():
    first = empty(LARGE, torch.float32).fill_(1)
    row = first[1].detach()
    del first
    second = empty(LARGE, torch.float32).fill_(2)
    assert row.eq(1).all()
    assert second.data_ptr() != row.data_ptr()


def test_autograd_keeps_its_memory():
    weight = torch.full((1,), 3.0, requires_grad=True)
    given = empty(LARGE, torch.float32).fill_(1)
    out = (given * weight).sum()
    del given
    other = empty(LARGE, torch.float32).fill_(7)
    out.backward()
    assert weight.grad.item() == pytest.approx(3 << 18)
    assert other.eq(7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_are_channels_last_and_aligned(dtype):
    image = empty_image((2, 64, 65, 63), dtype)
    assert image.shape == (2, 64, 65, 63)
    assert image.dtype == dtype
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert image.data_ptr() % 64 == 0
    image.fill_(1)
    assert image.sum() == image.numel()


def test_small_ones_are_ordinary_tensors():
    assert empty((4,), torch.float32).untyped_storage().resizable()
    assert empty((0, 5), torch.float32).shape == (0, 5)


def test_what_no_longer_fits_is_given_back(monkeypatch):
    monkeypatch.setattr(memory, "_SPARE", 0)
    before = memory._mapped
    for megabytes in range(2, 40):  # never the same size twice
        empty((megabytes << 18,), torch.float32)
    kept = memory._mapped - before
    assert kept <= 1.5 * (39 << 20) + before


def test_release_gives_back_what_is_not_in_use():
    held, dropped = empty(LARGE, torch.float32).fill_(1), empty((1 << 20,), torch.float32)
    before = memory._mapped
    del dropped
    assert memory._mapped == before
    memory.release()
    assert memory._mapped == before - (4 << 20)
    assert held.eq(1).all()


@pytest.mark.skipif(sys.platform != "linux", reason="resident pages are known on Linux only")
def test_a_huge_page_is_for_what_fills_it():
    """What is left beyond whole pages of 2 MB takes no more memory than it has."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists() and "[always]" in setting.read_text(encoding="ascii"):
        pytest.skip("the system uses huge pages everywhere")

    def resident() -> int:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * mmap.PAGESIZE

    before = resident()
    kept = [empty((320, 1024), torch.float32).fill_(1) for _ in range(40)]  # 1.3 MB each
    assert resident() - before < 1.2 * sum(x.nbytes for x in kept)
