"""The laws that convolutions on images obey: threads, batches, linearity, shifts, any geometry."""

from __future__ import annotations

from dataclasses import replace

import image_oracle
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from image_calls import by_every_function
from image_cases import F32, F64, LAYOUTS, SHAPES, ImageCase, each, in_turn

from pointwise.functional import conv2d, depthwise_conv2d, depthwise_separable_conv2d


def results(case: ImageCase) -> list[torch.Tensor]:
    """What the functions give for a case, and a separable convolution of it, with epilogues."""
    x, weight, bias = case.tensors()
    residual = case.tensor("residual")
    found = [out for _, out in by_every_function(case)]
    for more in ({"activation": "silu"}, {"activation": "relu", "residual": residual}):
        found.append(conv2d(x, weight, bias, **case.geometry, groups=case.groups, **more))
    if case.is_depthwise:
        mix = torch.from_numpy(case.values("mix", (19, case.channels[1]))).to(case.dtype)
        found.append(depthwise_separable_conv2d(x, weight, mix, bias, **case.geometry,
                                                depthwise_activation="relu"))  # fmt: skip
    return found


LARGE = in_turn([
    ImageCase("large", (40, 41), (9, 33), layout="channels_last"),
    ImageCase("large, stride 2", (61, 40), (3, 32), padding="same", stride=2),
    ImageCase("large, groups", (30, 29), (34, 68), groups=2),
    ImageCase("large pointwise", (45, 46), (67, 70), (1, 1), padding=0, layout="channels_last"),
    ImageCase("deep pointwise", (7, 7), (600, 130), (1, 1), padding=0, layout="channels_last"),
    ImageCase("large depthwise", (56, 57), (65, 65), groups=65, layout="channels_last"),
    ImageCase("large depthwise, stride 2", (56, 57), (32, 32), (5, 5), padding="same", stride=2,
              groups=32),
    ImageCase("large depthwise, times 2", (30, 31), (17, 34), groups=17),
])  # fmt: skip


@each(LARGE)
def test_any_number_of_threads_gives_the_same_bits(case, threads, poisoned):
    threads(1)
    alone = results(case)
    for count in (2, 3):
        threads(count)
        for a, b in zip(alone, results(case), strict=True):
            assert torch.equal(a, b)


def test_a_late_activation_gives_the_same_bits_with_any_number_of_threads(threads):
    (case,) = [case for case in LARGE if case.name == "large depthwise"]
    residual = case.tensor("residual")
    threads(1)
    alone = depthwise_conv2d(*case.tensors(), padding=1, activation="silu", residual=residual)
    threads(2)
    again = depthwise_conv2d(*case.tensors(), padding=1, activation="silu", residual=residual)
    assert torch.equal(alone, again)


@each(LARGE)
def test_large_images_against_pytorch(case, poisoned):
    # Too large for loops in Python; float64 in PyTorch is exact enough for float32.
    case = replace(case, dtype=F32)
    x, weight, bias = case.tensors()
    stride, ((top, bottom), (left, right)), dilation = case.places

    def exact(x, weight, bias):
        x = F.pad(x.double(), (left, right, top, bottom))
        return F.conv2d(x, weight.double(), bias.double(), stride, 0, dilation, case.groups).numpy()

    magnitude = exact(x.abs(), weight.abs(), bias.abs())
    expected = exact(x, weight, bias)
    for name, out in by_every_function(case):
        image_oracle.assert_close(out.numpy(), expected, magnitude, case.terms, what=name)


@each([*SHAPES, *LARGE])
def test_an_image_is_the_same_alone_and_in_a_batch(case):
    x, weight, bias = case.tensors()
    x = torch.cat([x, x.flip(0), x])[:5]
    options = {**case.geometry, "groups": case.groups, "activation": "relu"}
    together = conv2d(x, weight, bias, **options)
    limit = 4 * torch.finfo(case.dtype).eps * case.terms**0.5
    for i in range(5):
        alone = conv2d(x[i : i + 1], weight, bias, **options)
        size = conv2d(x[i : i + 1].abs(), weight.abs(), bias.abs(), **options)
        assert bool(((alone - together[i : i + 1]).abs() <= limit * size).all())


@st.composite
def geometries(draw) -> ImageCase:
    """Any convolution on an image that PyTorch can do too."""
    kind = draw(st.sampled_from(["standard", "groups", "depthwise", "pointwise"]))
    groups = draw(st.integers(1, 20)) if kind in ("groups", "depthwise") else 1
    c_in = groups * (1 if kind == "depthwise" else draw(st.integers(1, 20 if groups == 1 else 4)))
    c_out = groups * draw(st.integers(1, 40 if groups == 1 else 3))
    kernel = (1, 1) if kind == "pointwise" else draw(st.tuples(*[st.integers(1, 5)] * 2))
    stride = draw(st.tuples(*[st.integers(1, 4)] * 2))
    dilation = (1, 1) if kind == "pointwise" else draw(st.tuples(*[st.integers(1, 3)] * 2))
    edge = st.integers(0, 6)
    padding = draw(st.sampled_from(["same", "valid"]) | edge | st.tuples(edge, edge)
                   | st.tuples(st.tuples(edge, edge), st.tuples(edge, edge)))  # fmt: skip
    sizes = list(draw(st.tuples(*[st.integers(1, 16)] * 2)))
    edges = image_oracle.edges(padding, sizes, kernel, stride, dilation)
    for i, (before, after) in enumerate(edges):  # so that the kernel fits
        sizes[i] += max(0, (kernel[i] - 1) * dilation[i] + 1 - sizes[i] - before - after)
    return ImageCase(
        f"drawn {draw(st.integers(0, 99))}", tuple(sizes), (c_in, c_out), kernel, stride, padding,
        dilation, groups, draw(st.none() | st.integers(0, 3)), draw(st.booleans()),
        draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS)),
        draw(st.sampled_from([F32, F64])),
    )  # fmt: skip


@given(geometries())
def test_any_convolution_is_the_oracle(case):
    for name, out in by_every_function(case):
        case.check(out, name)


@given(geometries())
def test_any_convolution_and_its_gradients_are_pytorchs(case):
    x, weight = (case.tensor(role, F64).requires_grad_() for role in ("input", "weight"))
    out = conv2d(x, weight, None, **case.geometry, groups=case.groups)
    stride, ((top, bottom), (left, right)), dilation = case.places
    padded = F.pad(x, (left, right, top, bottom))
    expected = F.conv2d(padded, weight, None, stride, 0, dilation, case.groups)
    grad = case.tensor("grad", F64)
    found = torch.autograd.grad(out, (x, weight), grad)
    for a, b in zip(found, torch.autograd.grad(expected, (x, weight), grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@given(geometries(), st.floats(-3, 3), st.floats(-3, 3))
def test_a_convolution_is_linear(case, a, b):
    x, weight, _ = case.tensors(F64)
    other = torch.from_numpy(case.values("other", case.input_shape))
    other = other[0] if case.batch is None else other

    def convolved(image):
        return conv2d(image, weight, None, **case.geometry, groups=case.groups)

    mixed = convolved(a * x + b * other)
    torch.testing.assert_close(mixed, a * convolved(x) + b * convolved(other), rtol=1e-11,
                               atol=1e-11)  # fmt: skip


@given(st.integers(0, 5), st.integers(0, 5), st.sampled_from(SHAPES), st.integers(1, 3))
def test_a_shifted_image_gives_a_shifted_result(down, right, case, stride):
    # Moved by whole strides: the same pixels of the result, at other places of the image.
    case = ImageCase(case.name, (25, 26), case.channels, case.kernel, stride, "valid",
                     groups=case.groups)  # fmt: skip
    x, weight, bias = case.tensors()
    options = {"stride": stride, "padding": "valid", "groups": case.groups, "activation": "relu"}
    whole = conv2d(x, weight, bias, **options)
    part = conv2d(x[:, :, down * stride :, right * stride :], weight, bias, **options)
    size = float(case.arrays["weight"].__abs__().sum(axis=(1, 2, 3)).max()) * 5 + 5
    torch.testing.assert_close(part, whole[:, :, down:, right:], rtol=0,
                               atol=4 * torch.finfo(F32).eps * case.terms**0.5 * size)  # fmt: skip
