"""Depth multipliers: planned runs of separable convolutions, and separable ones inside others."""

from __future__ import annotations

import pytest
import torch
from image_modules import by_turns, picture
from image_runs import F32, compare, one_by_one, settled
from torch import nn

from pointwise.layers import (
    Bottleneck,
    ConvNormAct,
    DepthwiseSeparableConv2d,
    conv_norm_act,
    in_sequence,
    inference,
)
from pointwise.networks import ResNet50
from pointwise.operators.images import repeated


class Row(nn.Sequential):
    def forward(self, input, residual=None):
        return in_sequence(input, list(self), residual)


def times(c_in, c_out, multiplier, **options):
    return DepthwiseSeparableConv2d(c_in, c_out, depth_multiplier=multiplier, **options)


NORM = {"norm": nn.BatchNorm2d}
ROWS = {
    "alone": lambda: Row(times(9, 17, 3)),
    "norms and activations": lambda: Row(times(9, 17, 2, activation="relu6", **NORM)),
    "hardswish, 5 × 5, stride 2": lambda: Row(
        times(9, 17, 4, kernel_size=5, stride=2, activation="hardswish")
    ),
    "one after the other": lambda: Row(
        times(9, 5, 2, activation="relu", **NORM), times(5, 33, 3, stride=2), times(33, 9, 2)
    ),
    "behind others": lambda: Row(
        ConvNormAct(9, 20), times(20, 8, 2), times(8, 12, 1, **NORM), times(12, 9, 2, **NORM)
    ),
    "in the place of a convolution": lambda: Row(
        inside(ConvNormAct(9, 17, stride=2, activation="silu"), 3), ConvNormAct(17, 8)
    ),
}


def inside(block: ConvNormAct, multiplier: int) -> ConvNormAct:
    conv = block.conv
    block.conv = DepthwiseSeparableConv2d(  # type: ignore[assignment]
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
        depth_multiplier=multiplier, bias=False, between=False)  # fmt: skip
    return block


def made(name, dtype=F32, training=False):
    torch.manual_seed(1)
    return settled(ROWS[name]()).to(dtype).train(training)


@pytest.fixture
def plans(monkeypatch) -> list[bool]:
    """Whether each call of ``inference.run`` had a plan."""
    seen = []
    run = inference.run

    def noted(input, links, residual=None):
        out = run(input, links, residual)
        seen.append(out is not None)
        return out

    monkeypatch.setattr(inference, "run", noted)
    return seen


@pytest.mark.parametrize(("name", "dtype"), by_turns(ROWS))
def test_rows_are_their_modules_one_by_one(name, dtype):
    for training in (True, False):
        ours = made(name, dtype, training)
        theirs = one_by_one(ours)
        for gradients in (True, False):
            compare(ours, theirs, dtype, gradients)


@pytest.mark.parametrize("name", ROWS)
def test_inference_is_planned_and_reads_each_new_input(name, plans, poisoned):
    ours = made(name)
    theirs = one_by_one(ours)
    with torch.no_grad():
        kept = [picture(2, 9, 8, 7, seed=seed) for seed in range(4)]  # at addresses of their own
        for x in kept:
            expected = theirs(x)
            plans.clear()
            found = ours(x)
            assert plans in ([True], [])  # none: the plan was found again without asking
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_residual_and_the_number_of_threads(threads):
    torch.manual_seed(1)
    ours = Row(times(9, 5, 2), times(5, 9, 3, activation="relu")).eval()
    theirs = one_by_one(ours)
    x = picture(3, 9, 30, 31)
    with torch.no_grad():
        first = ours(x, x)
        torch.testing.assert_close(first, theirs(x, x), rtol=1e-4, atol=1e-4)
        other = picture(3, 9, 30, 31, seed=8)
        torch.testing.assert_close(ours(x, other), theirs(x, other), rtol=1e-4, atol=1e-4)
        for count in (1, 2, 3):
            threads(count)
            assert torch.equal(ours(x, x), first)


def test_what_has_no_plan_runs_all_the_same(plans):
    torch.manual_seed(1)
    for row in (
        Row(times(9, 12, 2, groups=3)),  # channels in another order would change groups
        Row(ConvNormAct(9, 18, groups=9, norm=None)),  # nothing behind it
        Row(times(9, 12, 2, norm=nn.BatchNorm2d), ConvNormAct(12, 24, groups=12)),
    ):
        compare(row.eval(), one_by_one(row), F32, gradients=False)
        assert not plans[0]
        plans.clear()


def test_changed_weights_are_seen():
    ours = made("one after the other")
    x = picture(2, 9, 8, 7)
    with torch.no_grad():
        ours(x)
        ours[1].depthwise.conv.weight.mul_(2)
        ours[2].pointwise.conv.weight.add_(1)
        torch.testing.assert_close(ours(x), one_by_one(ours)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hooked", ["itself", "its half"])
def test_hooks_on_a_separable_one_inside_are_called(hooked):
    block = inside(ConvNormAct(9, 17), 2).eval()
    with torch.no_grad():
        expected = block(picture(2, 9, 8, 7))
        seen = []
        target = block.conv if hooked == "itself" else block.conv.pointwise
        target.register_forward_hook(lambda *given: seen.append(1))
        found = Row(block)(picture(2, 9, 8, 7))
    assert seen == [1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_inside_with_a_norm_of_its_own_keeps_it():
    block = ConvNormAct(9, 17)
    block.conv = times(9, 17, 2, norm=nn.BatchNorm2d, activation="relu")
    block = settled(block).eval()
    x = picture(2, 9, 8, 7)
    with torch.no_grad():
        expected = torch.relu(block.norm(block.conv(x)))
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)
        found = conv_norm_act(x, block.conv, block.norm, "relu", residual=expected)
        added = torch.relu(block.norm(block.conv(x)) + expected)
        torch.testing.assert_close(found, added, rtol=1e-4, atol=1e-4)


def test_bottlenecks_and_stems_take_one_too(plans):
    torch.manual_seed(1)
    block = Bottleneck(12, 5)
    block.conv2 = DepthwiseSeparableConv2d(5, 5, depth_multiplier=2, bias=False, between=False)
    block = settled(block).eval()
    compare(block, one_by_one(block), F32, gradients=False, sizes=(2, 12, 8, 7))
    plans.clear()
    with torch.no_grad():
        block(picture(2, 12, 8, 7))
    assert plans == [True, True]  # the shortcut, and the other four convolutions together
    network = ResNet50(classes=3).eval()
    network.conv1 = DepthwiseSeparableConv2d(3, 64, 7, 2, 3, depth_multiplier=2, bias=False,
                                             between=False)  # fmt: skip
    x = picture(1, 3, 40, 40)
    with torch.no_grad():
        plans.clear()
        found = network(x)
        assert all(plans)
        torch.testing.assert_close(found, one_by_one(network)(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("multiplier", [1, 2, 5])
def test_repeated_channels(multiplier):
    x = picture(2, 7, 3, 4).contiguous(memory_format=torch.channels_last)
    found = repeated(x, multiplier)
    assert torch.equal(found, x.repeat_interleave(multiplier, 1))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert repeated(x[:0], multiplier).shape == (0, 7 * multiplier, 3, 4)
