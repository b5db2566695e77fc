"""Where convolutions look, and their adjoint: every read is given back, once, by one phase."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_cases import CASES, ImageCase, each
from image_oracle import reads

from pointwise.convolution.window import Axis, Window, adjoint, window
from pointwise.engine.cpu.loops.input_gradient import phase_of, phases


def triples(axis: Axis) -> Counter:
    """Every (pixel, tap, point) of a convolution along one axis, by the definition."""
    found = Counter()
    for point in range(axis.points):
        for tap in range(axis.taps):
            pixel = point * axis.stride - axis.padding + tap * axis.dilation
            if 0 <= pixel < axis.size:
                found[pixel, tap, point] += 1
    return found


def given_back(axis: Axis) -> Counter:
    """The same, as the phases of the adjoint find them: their pixels are the result's points."""
    found = Counter()
    for phase in adjoint(axis):
        for number in range(phase.axis.points):
            pixel = phase.first + number * phase.stride
            for i in range(phase.axis.taps):
                point = number * phase.axis.stride - phase.axis.padding + i * phase.axis.dilation
                if 0 <= point < phase.axis.size:
                    found[pixel, phase.tap - i * phase.tap_stride, point] += 1
    return found


def check(axis: Axis) -> None:
    assert given_back(axis) == triples(axis)
    # The phases are all the pixels of the image, each once.
    pixels = Counter(
        phase.first + n * phase.stride for phase in adjoint(axis) for n in range(phase.axis.points)
    )
    assert pixels == Counter(range(axis.size))
    assert all(phase.axis.size == axis.points for phase in adjoint(axis))
    assert all(0 <= phase.tap < axis.taps for phase in adjoint(axis))


@given(st.data())
def test_every_read_is_given_back_once(data):
    draw = data.draw
    size, taps = draw(st.integers(1, 30)), draw(st.integers(1, 9))
    stride, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    least = max(0, (taps - 1) * dilation + 1 - size)  # padding, so that the kernel fits
    before = draw(st.integers(0, least + 9))
    after = draw(st.integers(max(0, least - before), least + 9))
    seen = window(1, (size, 1), (taps, 1), (stride, 1), (before, after, 0, 0), (dilation, 1))
    assert seen.y.points >= 1
    check(seen.y)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4, 6])
def test_strides_and_dilations_with_common_factors(stride, dilation):
    # Where they share a factor, some pixels get nothing through any tap.
    for taps in (1, 2, 3, 5):
        for size in (1, 2, 7, 12):
            for before in (0, 1, 5):
                least = max(0, (taps - 1) * dilation + 1 - size - before)
                places = (size, 1), (taps, 1), (stride, 1), (before, least, 0, 0), (dilation, 1)
                check(window(1, *places).y)


def test_a_pixel_between_two_points():
    # Stride 2 and a kernel of one tap: every second pixel is not read by anything.
    phases = list(adjoint(Axis(size=5, points=3, taps=1, stride=2)))
    assert [(phase.first, phase.stride, phase.axis.taps) for phase in phases] == [
        (0, 2, 1),
        (1, 2, 0),
    ]


@each([case for case in CASES if case.batch])
def test_the_window_reads_what_the_oracle_reads(case: ImageCase):
    stride, padding, dilation, _ = case.numbers
    seen = window(case.batch, case.sizes, case.kernel, stride, padding, dilation)
    assert (seen.images, seen.y.points, seen.x.points) == (case.batch, *case.result_shape[2:])
    assert seen.points == case.batch * case.result_shape[2] * case.result_shape[3]
    assert seen.taps == case.kernel[0] * case.kernel[1]
    rows, columns = triples(seen.y), triples(seen.x)
    found = {
        ((q_y, q_x), (j, i), (y, x)) for y, j, q_y in rows for x, i, q_x in columns
    }  # (point, tap, pixel)
    expected = set(reads(case.sizes, case.kernel, *case.places))
    assert found == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"kernel": (2, 1)}, False),
        ({"stride": (1, 2)}, False),
        ({"padding": (1, 1, 0, 0)}, False),
        ({"padding": (1, -1, 0, 0)}, False),  # as many points as pixels, one pixel apart
        ({"dilation": (3, 2)}, True),  # one tap lies nowhere else
    ],
)
def test_only_pixels_by_themselves_are_the_identity(change, expected):
    plain = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    seen = window(2, (5, 6), **(plain | change))
    assert seen.is_identity is expected


@each([case for case in CASES if case.batch and not case.is_depthwise])
def test_the_taps_of_a_phase(case: ImageCase):
    # The weight holds the number of each tap: what a phase reads says which taps it has.
    stride, padding, dilation, _ = case.numbers
    seen: Window = window(case.batch, case.sizes, case.kernel, stride, padding, dilation)
    numbers = torch.arange(seen.taps, dtype=torch.float64).view(1, 1, *case.kernel)
    for y, x in phases(seen):
        taps, back = phase_of(numbers, seen, y, x)
        assert back == Window(seen.images, y.axis, x.axis)
        expected = [
            [(y.tap - j * y.tap_stride) * case.kernel[1] + x.tap - i * x.tap_stride
             for i in range(x.axis.taps)]
            for j in range(y.axis.taps)
        ]  # fmt: skip
        assert taps.shape == (1, 1, y.axis.taps, x.axis.taps)
        assert taps.flip((2, 3))[0, 0].tolist() == expected  # they are read backwards
