"""Whether tensors are still what they were, seen from their memory."""

from __future__ import annotations

import pytest
import torch

from pointwise.engine.cpu.changes import Snapshot, why_unseen

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8]


def layouts(dtype):
    wide = (100 * torch.rand(6, 5, 7, 9)).to(dtype)
    return {
        "dense": wide.clone(),
        "channels_last": wide.clone().contiguous(memory_format=torch.channels_last),
        "transposed": wide.clone().transpose(0, 3),
        "every other": wide.clone()[:, ::2, 1:, ::3],
        "a number": wide.clone()[1, 2, 3, 4],
        "odd": wide.clone().flatten()[1:336],
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_write_to_all_is_seen(dtype):
    for kind, tensor in layouts(dtype).items():
        snapshot = Snapshot([tensor])
        assert snapshot.is_still([tensor])
        tensor.data.add_(1)
        assert not snapshot.is_still([tensor]), kind
        snapshot = Snapshot([tensor])
        tensor.add_(1)
        assert not snapshot.is_still([tensor]), kind
        assert not snapshot.is_still([tensor.clone()])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_of_inference_tensors_every_number_counts(dtype):
    with torch.inference_mode():
        for kind, tensor in layouts(dtype).items():
            for place in torch.randint(0, tensor.numel(), (20,)).tolist():
                index = tuple(
                    i.item() for i in torch.unravel_index(torch.tensor(place), tensor.shape)
                )
                snapshot = Snapshot([tensor])
                assert snapshot.is_still([tensor])
                tensor[index] += 1
                assert not snapshot.is_still([tensor]), (kind, index)
        row = torch.arange(12).to(dtype)
        snapshot = Snapshot([row])
        row[[3, 8]] = row[[8, 3]]
        assert not snapshot.is_still([row])
        assert Snapshot([row[:0]]).is_still([row[:0]])


def test_an_inference_tensor_in_place_of_another():
    tensor = torch.rand(5)
    with torch.inference_mode():
        other = tensor.clone()
    assert not Snapshot([tensor]).is_still([other])
    assert not Snapshot([other]).is_still([tensor])
    assert Snapshot([tensor, other]).is_still([tensor, other])


def test_what_cannot_be_seen():
    assert why_unseen(torch.rand(3)) == ""
    assert "of layout torch.sparse_coo" in why_unseen(torch.eye(3).to_sparse())
    assert "on meta" in why_unseen(torch.empty(3, device="meta"))
    assert "quantised" in why_unseen(torch.quantize_per_tensor(torch.rand(3), 1.0, 0, torch.quint8))
