"""Why kernels may not run here and now: modes, tracers, transforms, and tensors without memory."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from pointwise.engine.eager import why_not_eager


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Own(torch.Tensor):
    pass


def test_ordinary_tensors_can_be_read():
    assert why_not_eager() is None
    assert why_not_eager(torch.rand(2), torch.nn.Parameter(torch.rand(2))) is None


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (lambda: torch.autocast("cpu"), "autocast is on"),
        (Mode, "a TorchDispatchMode is on"),
        (forward_ad.dual_level, "in forward mode"),
    ],
)
def test_modes(mode, why):
    with mode():
        assert why in str(why_not_eager(torch.rand(2)))
    assert why_not_eager(torch.rand(2)) is None


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.rand(2).as_subclass(Own), "Own is no plain tensor"),
        (torch.rand(2, 2).to_sparse(), "an input on cpu with layout torch.sparse_coo"),
        (
            torch.rand(2, dtype=torch.complex64).conj().imag,
            "an input that is to be conjugated or negated",
        ),
        (torch._efficientzerotensor((2,)), "an input whose memory does not hold its values"),
        (torch.empty(2, device="meta"), "an input on meta with layout torch.strided"),
    ],
)
def test_tensors_without_memory_of_their_own(x, why):
    assert why_not_eager(torch.rand(2), x) == why


def test_transforms_and_tracers():
    found = []

    def look(x):
        found.append(why_not_eager(x))
        return x + 1

    torch.func.vmap(look)(torch.rand(2, 3))
    torch.jit.trace(look, torch.rand(3), check_trace=False)
    assert found == ["one of torch.func's transforms is at work", "it is being traced"]
