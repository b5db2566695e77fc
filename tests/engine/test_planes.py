"""Images whose channels lie last, written plane by plane: PyTorch's copy, in any size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pointwise import accelerate
from pointwise.engine.cpu.loops import planes

SIZES = (
    (1, 21, 40, 40), (2, 16, 9, 8), (3, 17, 1, 5), (1, 8, 13, 11), (2, 3, 7, 9), (1, 33, 67, 2),
    (1, 64, 1, 1), (2, 1, 5, 5), (1, 20, 128, 65),
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_as_pytorch(size, dtype):
    x = torch.randn(size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    room = torch.full((x.numel() + 32,), float("nan"), dtype=dtype)
    out = room[16:-16].view(size)
    planes.planes(x, out).run()
    assert torch.equal(out, x)
    assert room[:16].isnan().all()
    assert room[-16:].isnan().all()


@pytest.mark.parametrize("count", [3, 21])
def test_results_of_accelerated_models(count):
    """They lie as PyTorch's do, and are new each time."""
    model, x = nn.Conv2d(3, count, 3).eval(), torch.randn(2, 3, 34, 35)
    faster = accelerate(model, x)
    first, kept, second = faster(x), faster(x).clone(), faster(-x)
    with torch.no_grad():
        wanted = model(x)
    torch.testing.assert_close(first, wanted)
    assert first.stride() == wanted.stride()
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)
    last = faster(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, wanted)
