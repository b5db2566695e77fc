"""Why kernels may not run here and now: modes, tracers, transforms, and tensors without memory."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import pointwise as pw
from pointwise.engine.eager import is_unseen, wants_gradients, why_not_eager


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


class Calls(TorchFunctionMode):
    """Counts the calls of one operator of ours."""

    count = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        self.count += "pointwise" in str(function)
        return function(*arguments, **(options or {}))


def test_whoever_watches_sees_the_operators():
    """Past the dispatcher nothing is to be seen; so calls go that way only where nobody looks."""
    x, weight = torch.rand(1, 4, 5, 5), torch.rand(3, 4, 1, 1)
    assert is_unseen((x, weight, None, [1, 1], "none"))
    assert not wants_gradients((x, weight, None))
    assert wants_gradients((x, weight.clone().requires_grad_()))
    with torch.no_grad():
        assert not wants_gradients((x, weight.clone().requires_grad_()))
    with Calls() as calls:
        expected = pw.conv2d(x, weight)
    assert calls.count == 1
    with torch.profiler.profile() as profiled:
        found = pw.conv2d(x, weight)
    assert "pointwise::conv2d" in [event.key for event in profiled.key_averages()]
    assert torch.equal(found, expected)
    assert torch.equal(pw.conv2d(x, weight), expected)


def test_what_a_transform_does_not_look_at_is_computed_in_it():
    """Weights that want gradients, and images, that are constants to ``vmap``."""
    x, weight = torch.rand(1, 4, 5, 5), torch.rand(3, 4, 1, 1).requires_grad_()
    expected = pw.conv2d(x, weight).sum()
    found = torch.func.vmap(lambda factor: factor * pw.conv2d(x, weight).sum())(torch.ones(2))
    torch.testing.assert_close(found, expected.expand(2))
    (slope,) = torch.autograd.grad(found.sum(), weight)
    torch.testing.assert_close(slope, 2 * torch.autograd.grad(expected, weight)[0])


def test_checks_that_passed_are_not_made_for_other_arguments():
    x, weight = torch.rand(1, 4, 5, 5), torch.rand(3, 4, 3, 3)
    for padding in (1, (1, 1)):
        assert pw.conv2d(x, weight, padding=padding).shape == (1, 3, 5, 5)
    for wrong, kind, message in (
        ({"padding": True}, ValueError, "padding must be"),  # which equals 1
        ({"stride": 1.0}, ValueError, "stride must be"),
        ({"bias": torch.rand(4)}, ValueError, "bias must be"),
        ({"bias": torch.rand(3).double()}, TypeError, "bias is"),
        ({"activation": ["relu"]}, ValueError, "activation must be"),
    ):
        with pytest.raises(kind, match=message):
            pw.conv2d(x, weight, **wrong)
