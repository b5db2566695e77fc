"""Layers without gradients run 3×3 kernels by Winograd's algorithm: how exact, and what is kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointwise.convolution.problem import describe
from pointwise.engine import choose
from pointwise.engine.cpu.loops.winograd import room_for, winograd_weight
from pointwise.engine.cpu.weights import WinogradWeight, pack_weight
from pointwise.layers import Conv2d, ConvNormAct, folding

F32, F64 = torch.float32, torch.float64


def layer(inputs=64, outputs=64, **options):
    torch.manual_seed(0)
    return Conv2d(inputs, outputs, 3, padding=1, **options).eval()


def exact(conv, x):
    weight, bias = (None if p is None else p.double() for p in (conv.weight, conv.bias))
    return F.conv2d(x.double(), weight, bias, padding=1)


def tile_size(conv):
    """Of what the layer keeps; 0 where it is no weight of Winograd's."""
    packed = folding._kept[conv][2]
    return packed.outputs if isinstance(packed, WinogradWeight) else 0


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [(56, 56), (13, 9), (3, 2), (1, 1), (8, 31)], ids=str)
def test_it_is_as_exact_as_is_said(size, memory):
    conv = layer()
    x = torch.randn(2, 64, *size).contiguous(memory_format=memory)
    wanted = exact(conv, x)
    for _ in range(2):  # prepared, and again
        with torch.no_grad():
            found = conv(x)
        assert (found - wanted).abs().max() <= 4e-6 * wanted.abs().max()
        assert found.is_contiguous(memory_format=torch.channels_last)
    root = (found - wanted).square().mean().sqrt()
    direct = (conv(x).detach() - wanted).square().mean().sqrt()  # as training computes it
    assert root <= 3 * direct


def test_float64_stays_float64():
    conv = layer().double()
    x = torch.randn(1, 64, 30, 30, dtype=F64)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), exact(conv, x), rtol=1e-12, atol=1e-12)


def test_the_loop_follows_the_image_and_the_weight():
    conv = layer(512, 512, bias=False)
    with torch.no_grad():
        for size, expected in ((7, 2), (1, 0), (14, 2), (7, 2)):
            x = torch.randn(1, 512, size, size)
            wanted = exact(conv, x)
            assert (conv(x) - wanted).abs().max() <= 4e-6 * wanted.abs().max()
            assert tile_size(conv) == expected
        small = layer()
        small(torch.randn(1, 64, 56, 56))
        assert tile_size(small) == 4
    for other in (layer(stride=2), layer(60, 64), layer(dilation=2), layer(groups=2)):
        with torch.no_grad():
            other(torch.randn(1, other.in_channels, 56, 56))
        assert tile_size(other) == 0


@pytest.mark.parametrize("outputs", [64, 512])
def test_a_new_weight_is_transformed_anew(outputs):
    """However it is written: counted by its version, through ``data``, or replaced."""
    conv = layer(outputs, outputs)
    x = torch.randn(1, outputs, 14, 14)

    def check():
        with torch.no_grad():
            for _ in range(2):
                found = conv(x)
        wanted = exact(conv, x)
        assert (found - wanted).abs().max() <= 4e-6 * wanted.abs().max()

    check()
    with torch.no_grad():
        conv.weight.mul_(0.5)
    check()
    conv.weight.data.add_(0.01)
    check()
    conv.weight = torch.nn.Parameter(torch.randn(outputs, outputs, 3, 3))
    check()
    with torch.no_grad():
        conv.bias.fill_(3)
    check()


def test_norms_are_folded_into_what_is_transformed():
    torch.manual_seed(0)
    unit = ConvNormAct(32, 64, 3).eval()
    norm = next(part for part in unit.modules() if isinstance(part, torch.nn.BatchNorm2d))
    torch.nn.init.uniform_(norm.running_mean), torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(1, 32, 29, 33)
    with torch.no_grad():
        found = unit(x)
        wanted = unit.double()(x.double())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


def test_functions_and_gradients_are_direct_sums():
    conv = layer(bias=False)
    x = torch.randn(1, 64, 20, 20, requires_grad=True)
    out = conv(x)
    out.sum().backward()
    problem = describe(x.shape, conv.weight.shape, (1, 1), (1,) * 4, (1, 1), 1, F32)
    assert choose.choose(problem) == choose.MIXED
    prepared = choose.prepare(problem, conv.weight.detach(), None)
    wanted = torch.empty_like(out).contiguous(memory_format=torch.channels_last)
    x = x.detach().contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, choose.launch(x, (prepared,), wanted).run())


def test_a_large_weight_is_kept_where_it_may_be():
    large = describe((1, 512, 7, 7), (512, 512, 3, 3), (1, 1), (1,) * 4, (1, 1), 1, F32)
    kept = choose.choose(large, constant=True, kept=True)
    assert kept == choose.Choice("winograd", 2)
    large = large._replace(window=describe((1, 512, 28, 28), (512, 512, 3, 3), (1, 1), (1,) * 4,
                                           (1, 1), 1, F32).window)  # fmt: skip
    assert choose.choose(large, constant=True).transformed_each_run


def test_a_large_weight_is_transformed_in_its_own_type():
    torch.manual_seed(0)
    weight, bias = torch.randn(320, 320, 3, 3), torch.randn(320)
    found = winograd_weight(weight, bias, 2)
    exactly = winograd_weight(weight.double(), bias.double(), 2)
    assert found.packed.numel() < room_for(pack_weight(weight, None), 2)
    own = found.packed.permute(0, 2, 1, 3).flatten(2)[..., :320]
    other = exactly.packed.permute(0, 2, 1, 3).flatten(2)[..., :320]
    assert (own - other).abs().max() <= 4 * torch.finfo(F32).eps * other.abs().max()
    assert torch.equal(found.bias[:320], bias)
