"""Counts of convolutions from their sizes: the literature's examples, and loops that count."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from pointwise import costs
from pointwise.costs import Count

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import image_shapes
import image_work


def test_the_numbers_of_the_literature():
    # M·D_p²·N for a pointwise convolution of M to N channels on D_p × D_p.
    for m, n, d in ((3, 7, 5), (512, 1024, 7), (1, 1, 1)):
        count = costs.pointwise(d, m, n)
        assert count.multiplications == count.multiply_adds == m * d**2 * n
        assert count.parameters == m * n
    # 12×12×3 to 8×8×3 to 8×8×256 with 5×5 filters.
    separable = costs.depthwise_separable(12, 3, 256, 5)
    standard = costs.convolution(12, 3, 256, 5)
    assert separable.multiplications == 53_952
    assert standard.multiplications == 1_228_800
    assert costs.depthwise(12, 3, 5).multiplications == 4_800
    assert costs.pointwise(8, 3, 256).multiplications == 49_152
    assert standard.parameters == 5 * 5 * 3 * 256
    assert separable.parameters == 5 * 5 * 3 + 3 * 256
    # 224×224×3 to 64 channels, 1×1.
    count = costs.pointwise(224, 3, 64)
    assert count.outputs == 3_211_264
    assert count.multiplications == 9_633_792


@pytest.mark.parametrize(("kernel", "n"), [(3, 64), (5, 256), (7, 3)])
def test_a_separable_convolution_takes_one_over_n_plus_one_over_k_squared(kernel, n):
    """MobileNets, section 3.1: 1/N + 1/D_K², exactly."""
    separable = costs.depthwise_separable(14, 32, n, kernel, padding="same")
    standard = costs.convolution(14, 32, n, kernel, padding="same")
    assert separable.multiplications * n * kernel**2 == standard.multiplications * (kernel**2 + n)
    assert separable.parameters * n * kernel**2 == standard.parameters * (kernel**2 + n)


def by_loops(sizes, c_in, c_out, kernel, stride, before, after, dilation, groups, bias, batch):
    """Walks over every product of the definition."""
    out = [
        (n + a + b - (k - 1) * d - 1) // s + 1
        for n, k, s, a, b, d in zip(sizes, kernel, stride, before, after, dilation, strict=True)
    ]
    products = additions = padded = 0
    seen = set()
    for image, o in itertools.product(range(batch), range(c_out)):
        group = o // (c_out // groups)
        for point in itertools.product(*map(range, out)):
            terms = 0
            for i in range(c_in // groups):
                for tap in itertools.product(*map(range, kernel)):
                    at = tuple(
                        p * s - a + t * d
                        for p, s, a, t, d in zip(point, stride, before, tap, dilation, strict=True)
                    )
                    terms += 1
                    if all(0 <= x < n for x, n in zip(at, sizes, strict=True)):
                        seen.add((image, group * (c_in // groups) + i, at))
                    else:
                        padded += 1
            products += terms
            additions += terms - 1 + bias
    outputs = batch * c_out
    for size in out:
        outputs *= size
    weights = c_out * c_in // groups
    for size in kernel:
        weights *= size
    weights += c_out if bias else 0
    return Count(weights, products, products, additions, 0, padded, outputs,
                 4 * (len(seen) + weights), 4 * outputs)  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("sizes", "c_in", "c_out", "kernel", "stride", "edges", "dilation", "groups"),
    [
        ((7, 7), 3, 4, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        ((7, 9), 4, 8, (3, 5), (2, 3), ((0, 1), (2, 2)), (1, 1), 4),
        ((9, 8), 6, 4, (3, 3), (1, 2), ((2, 2), (0, 3)), (2, 3), 2),
        ((8, 8), 2, 3, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
        ((11,), 3, 6, (5,), (2,), ((4, 1),), (2,), 3),
        ((4, 5, 3), 2, 3, (2, 3, 1), (1, 2, 1), ((1, 0), (1, 1), (0, 0)), (1, 1, 1), 1),
    ],
)
def test_every_number_is_that_of_loops(
    sizes, c_in, c_out, kernel, stride, edges, dilation, groups, bias
):
    expected = by_loops(sizes, c_in, c_out, kernel, stride, [a for a, _ in edges],
                        [b for _, b in edges], dilation, groups, bias, 2)  # fmt: skip
    found = costs.convolution(sizes, c_in, c_out, kernel, stride, edges, dilation, groups, bias, 2)
    assert found == expected


def test_kinds_are_the_same_formula_with_other_groups():
    assert costs.depthwise(9, 6, 3) == costs.convolution(9, 6, 6, 3, groups=6)
    assert costs.depthwise(9, 6, 3, 2) == costs.convolution(9, 6, 12, 3, groups=6)
    assert costs.grouped(9, 6, 4, 2) == costs.convolution(9, 6, 4, 3, groups=2)
    assert costs.pointwise(9, 6, 4, stride=2) == costs.convolution(9, 6, 4, 1, stride=2)
    halves = costs.depthwise(9, 6, 3, padding=1) + costs.pointwise(9, 6, 4, bias=True)
    assert costs.depthwise_separable(9, 6, 4, 3, padding=1, bias=True) == halves


def test_joined_halves_neither_write_nor_read_what_lies_between():
    apart = costs.depthwise_separable((14, 14), 32, 64, padding="same")
    joined = costs.depthwise_separable((14, 14), 32, 64, padding="same", joined=True)
    between = 4 * 14 * 14 * 32
    assert apart.bytes_read - joined.bytes_read == between
    assert apart.bytes_written - joined.bytes_written == between
    assert joined.multiply_adds == apart.multiply_adds
    assert joined.bytes_read == 4 * (14 * 14 * 32 + 9 * 32 + 32 * 64)


def test_products_and_bytes_agree_with_the_benchmarks_own_count():
    """Which counts no padding, by other code."""
    shapes = image_shapes.all_convolutions()
    assert len(shapes) > 30
    for shape in shapes:
        compare(shape)


def compare(shape):
    count = costs.convolution(shape.size, shape.c_in, shape.c_out, shape.kernel, shape.stride,
                              shape.padding, groups=shape.groups, batch=4)  # fmt: skip
    work = image_work.forward(shape, 4)
    assert 2 * (count.multiply_adds - count.on_padding) == work.flops
    assert count.bytes == work.bytes


def test_what_is_derived():
    count = costs.convolution(8, 2, 3, 3, bias=True)
    assert count.operations == 2 * count.multiply_adds  # with a bias, each product has its sum
    assert count.bytes == count.bytes_read + count.bytes_written
    assert count.intensity == count.operations / count.bytes
    assert Count().intensity == 0
    assert count.as_dict()["operations"] == count.operations
    assert not (count + Count(exact=False)).exact
    half = costs.convolution(8, 2, 3, 3, bias=True, number_bytes=2)
    assert 2 * half.bytes == count.bytes
    with pytest.raises(TypeError, match="unsupported operand"):
        count + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: costs.convolution((1, 2, 3, 4), 3, 4), r"size must be a number \(of a square\)"),
        (lambda: costs.convolution(0, 3, 4), "size must be a whole number from 1"),
        (lambda: costs.convolution(8, 0, 4), "in_channels must be a whole number from 1, got 0"),
        (lambda: costs.convolution(8, 3, 4, batch=0), "batch must be a whole number from 1"),
        (lambda: costs.convolution(8, 3, 4, groups=2), "groups must be a whole number that div"),
        (lambda: costs.convolution(8, 4, 3, groups=2), "out_channels must be a multiple of groups"),
        (lambda: costs.convolution(8, 3, 4, 9), "8 × 8 pixels is too small for a kernel of 9 × 9"),
        (lambda: costs.convolution(8, 3, 4, padding="some"), 'padding must be "same", "valid"'),
        (lambda: costs.convolution(8, 3, 4, 0), "kernel_size must be a whole number from 1"),
        (lambda: costs.depthwise(8, 2.5), "depthwise: channels must be a whole number from 1"),
        (lambda: costs.depthwise(8, 2, multiplier=0), "depthwise: multiplier must be"),
        (lambda: costs.depthwise_separable(8, 0, 2), "depthwise_separable: in_channels must be"),
        (lambda: costs.depthwise_separable(8, 2, 0), "depthwise_separable: out_channels must be"),
        (lambda: costs.depthwise_separable(8, 2, 2, multiplier=-1), "multiplier must be"),
    ],
)
def test_wrong_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
