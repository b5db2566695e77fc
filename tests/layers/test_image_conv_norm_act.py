"""``conv_norm_act`` and ``ConvNormAct``: whatever is fused, the result is that of PyTorch's modules
one behind the other, with their gradients and statistics, and from what they are at the moment."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from image_cases import LAYOUTS, laid_out
from image_modules import CLOSE, EACH_KIND, KINDS, NORMS, PLAIN, compare, pair, picture
from torch import nn

from pointwise.layers import ConvNormAct, conv_norm_act


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("gradients", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize(
    ("norm", "dtype"),
    [
        *[(norm, torch.float32) for norm in NORMS],
        *[(norm, torch.float64) for norm in ("BatchNorm2d", "neither")],
    ],
)
@EACH_KIND
def test_it_is_the_modules_one_behind_the_other(kind, norm, gradients, training, dtype):
    for activation, residual in (("relu6", False), ("hardswish", True)):
        ours, theirs = pair(kind, norm, activation, dtype)
        ours.train(training)
        theirs.train(training)
        for _ in range(2):  # the second time from other running statistics, and from any cache
            compare(ours, theirs, dtype, residual, gradients)


@pytest.mark.parametrize("activation", list(PLAIN), ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@EACH_KIND
def test_every_activation_with_and_without_a_residual(kind, training, activation):
    for residual in (False, True):
        for gradients in (False, True):
            ours, theirs = pair(kind, "BatchNorm2d", activation)
            ours.train(training)
            theirs.train(training)
            compare(ours, theirs, torch.float32, residual, gradients)


@pytest.mark.parametrize(
    "training",
    [True, False],
    ids=["train", "eval"],
)
@EACH_KIND
def test_any_part_may_be_frozen(kind, training):
    """Of input, residual and parameters any may want gradients, and nothing else gets one."""
    names = ("input", "residual", "conv.weight", "conv.bias", "norm.weight", "norm.bias")
    for count in range(1, len(names) + 1):
        for asked in itertools.combinations(names, count):
            found = []
            for module in pair(kind, "BatchNorm2d", "relu"):
                module.train(training)
                x = picture(3, 6, 5, 4)
                with torch.no_grad():
                    residual = picture(*module.conv(x).shape, seed=5)
                tensors = {"input": x, "residual": residual, **dict(module.named_parameters())}
                for name, tensor in tensors.items():
                    tensor.requires_grad_(name in asked)
                wanted = [t for t in tensors.values() if t.requires_grad]
                if not wanted:  # only the bias, and there is none
                    continue
                out = module(x, residual)
                assert out.requires_grad, asked
                found.append(torch.autograd.grad(out, wanted, picture(*out.shape, seed=6)))
            for a, b in zip(*found, strict=True) if found else ():
                scale = 1 + float(b.abs().max())
                torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "training",
    [
        True,
        False,
    ],
    ids=["train", "eval"],
)
def test_every_kind_of_hook_is_called(training):
    for part in ("conv", "norm"):
        for register in (
            "register_forward_hook",
            "register_forward_pre_hook",
            "register_full_backward_hook",
            "register_full_backward_pre_hook",
        ):
            layer = ConvNormAct(4, 6).train(training)
            called = []
            getattr(getattr(layer, part), register)(lambda *given: called.append(1))  # noqa: B023
            layer(picture(2, 4, 5, 6).requires_grad_()).sum().backward()
            assert called == [1], f"{part}, {register}"


@EACH_KIND
def test_gradients_of_gradients_are_right_or_refused(kind):
    for training in (True, False):
        found = []
        for module in pair(kind, "BatchNorm2d", "silu", torch.float64):
            module.train(training)
            x = picture(2, 6, 4, 5, dtype=torch.float64).requires_grad_()
            (slope,) = torch.autograd.grad(module(x).pow(3).sum(), x, create_graph=True)
            refusal = ""
            try:
                slope.square().sum().backward()
            except RuntimeError as error:
                refusal = str(error)
            if refusal:  # with fixed statistics there is nothing to refuse
                assert training
                assert module.__class__ is ConvNormAct
                assert "once_differentiable" in refusal
                break
            found.append((x.grad, module.conv.weight.grad, module.norm.weight.grad))
        else:
            for a, b in zip(*found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()))


def test_norms_that_do_not_fit_are_refused_as_by_pytorch():
    x = picture(2, 4, 5, 6)
    conv = ConvNormAct(4, 6).conv
    for norm in (nn.BatchNorm2d(7), nn.BatchNorm2d(3),
                 nn.BatchNorm1d(6)):  # fmt: skip
        for training in (True, False):
            norm.train(training)
            for gradients in (True, False):
                with torch.set_grad_enabled(gradients):
                    try:
                        expected = copy.deepcopy(norm)(conv(x))
                    except (RuntimeError, ValueError):
                        with pytest.raises((RuntimeError, ValueError, TypeError)):
                            conv_norm_act(x, conv, norm)
                    else:
                        torch.testing.assert_close(conv_norm_act(x, conv, norm), expected)


def test_norms_with_a_forward_of_their_own():
    class Halved(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input) / 2

    class Unchecked(nn.BatchNorm2d):
        def _check_input_dim(self, input):
            pass

    x = picture(2, 4, 5, 6)
    for kind in (Halved, Unchecked):
        for training in (True, False):
            layer = ConvNormAct(4, 6, norm=kind).train(training)
            for gradients in (True, False):
                with torch.set_grad_enabled(gradients):
                    expected = F.relu(copy.deepcopy(layer.norm)(layer.conv(x)))
                    torch.testing.assert_close(layer(x), expected, **CLOSE[torch.float32])


@EACH_KIND
def test_a_frozen_norm_in_a_network_that_learns(kind):
    ours, theirs = pair(kind, "BatchNorm2d", "relu")
    for module in (ours, theirs):
        module.train()
        module.norm.eval()
        for parameter in module.norm.parameters():
            parameter.requires_grad_(False)
    before = copy.deepcopy(ours.norm.state_dict())
    compare(ours, theirs, torch.float32, residual=True)
    for name, value in ours.norm.state_dict().items():
        assert torch.equal(value, before[name])


@EACH_KIND
def test_frozen_weights_and_a_norm_that_learns(kind):
    ours, theirs = pair(kind, "BatchNorm2d", "relu")
    for module in (ours, theirs):
        module.train()
        module.conv.requires_grad_(False)
    compare(ours, theirs, torch.float32, residual=False)


def test_the_statistics_of_large_numbers_with_little_spread():
    # E[x²] - E[x]² would lose everything here.
    ours, theirs = pair("pointwise", "BatchNorm2d", None)
    with torch.no_grad():
        for module in (ours, theirs):
            module.train()
            module.conv.weight.zero_()
            module.conv.weight[:, 0] = 1
    x = 1000 + 0.1 * picture(8, 6, 9, 9)
    out, expected = ours(x), theirs(x.double().float())
    exact = (x[:, :1].double() - x[:, :1].double().mean()) / x[:, :1].double().std(correction=0)
    scale = theirs.norm.weight.detach().view(1, -1, 1, 1)
    exact = exact * scale + theirs.norm.bias.detach().view(1, -1, 1, 1)
    # Numbers about 1000 are rounded to 6e-5, which is 6e-4 of the spread; PyTorch does no better.
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=5e-3)
    torch.testing.assert_close(expected.double(), exact, rtol=0, atol=5e-3)
    torch.testing.assert_close(ours.norm.running_var, theirs.norm.running_var, rtol=1e-3, atol=0)


def test_one_value_for_each_channel_is_refused_in_training_as_by_pytorch():
    layer = ConvNormAct(3, 4).train()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer(torch.ones(1, 3, 1, 1))
    layer.eval()(torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@EACH_KIND
def test_an_empty_batch(kind, training):
    ours, theirs = pair(kind, "BatchNorm2d", "relu")
    ours.train(training)
    theirs.train(training)
    x = torch.zeros(0, 6, 7, 8)
    try:
        expected = theirs(x)
    except ValueError as refusal:
        with pytest.raises(ValueError, match=str(refusal)[:20]):
            ours(x)
    else:
        assert ours(x).shape == expected.shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_inputs_in_every_layout(training, layout, poisoned):
    for kind in KINDS:
        ours, theirs = pair(kind, "BatchNorm2d", "silu")
        x = laid_out(picture(3, 6, 5, 7), layout)
        for module in (ours, theirs):
            module.train(training)
        with torch.no_grad():
            expected = theirs(x.contiguous())
            torch.testing.assert_close(ours(x), expected, **CLOSE[torch.float32])


def test_any_conv_and_norm_of_pytorch_go_through_conv_norm_act():
    conv, norm = nn.Conv2d(4, 6, 3, 2, 1, padding_mode="reflect"), nn.BatchNorm2d(6)
    x = picture(2, 4, 8, 8)
    for training in (True, False):
        conv.train(training)
        norm.train(training)
        with torch.no_grad():
            found = conv_norm_act(x, conv, copy.deepcopy(norm), "relu")
            torch.testing.assert_close(
                found, F.relu(copy.deepcopy(norm)(conv(x))), **CLOSE[torch.float32]
            )

    class Doubling(nn.Conv2d):
        def forward(self, input):
            return 2 * super().forward(input)

    conv = Doubling(4, 6, 1)
    with torch.no_grad():
        torch.testing.assert_close(conv_norm_act(x, conv, None, "relu"), F.relu(conv(x)))


def test_hooks_and_parametrizations_are_heeded():
    layer = ConvNormAct(4, 6, 3).eval()
    x = picture(2, 4, 8, 8)
    with torch.no_grad():
        before = layer(x)
        seen = []
        handle = layer.norm.register_forward_hook(lambda module, given, out: seen.append(out))
        torch.testing.assert_close(layer(x), before)
        assert len(seen) == 1
        handle.remove()
        handle = layer.conv.register_forward_hook(lambda module, given, out: out * 0)
        assert not torch.equal(layer(x), before)
        handle.remove()
        torch.nn.utils.parametrizations.weight_norm(layer.conv)
        torch.testing.assert_close(layer(x), before, **CLOSE[torch.float32])
        layer.conv.parametrizations.weight.original0.mul_(2)
        expected = F.relu(layer.norm(F.conv2d(x, layer.conv.weight, None, 1, 1)))
        torch.testing.assert_close(layer(x), expected, **CLOSE[torch.float32])
