"""One table of convolutions on images, of which the tests of functions and operators are made."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import image_oracle
import numpy as np
import pytest
import torch

F32, F64 = torch.float32, torch.float64


@dataclass
class ImageCase:
    """Inputs of a convolution: sizes, geometry, precision, and how the numbers lie in memory.

    The numbers are the same in every precision: all fit into float32. ``batch`` None means an image
    without a batch.
    """

    name: str
    sizes: tuple[int, ...] = (6, 7)
    channels: tuple[int, int] = (3, 5)
    kernel: tuple[int, ...] = (3, 3)
    stride: int | tuple[int, ...] = 1
    padding: str | int | tuple = 1
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    batch: int | None = 2
    bias: bool = True
    layout: str = "contiguous"
    weight_layout: str = "contiguous"
    dtype: torch.dtype = F32

    def __str__(self) -> str:
        return self.name if self.dtype == F32 else f"{self.name}, float64"

    @property
    def dimensions(self) -> int:
        return len(self.sizes)

    @property
    def geometry(self) -> dict:
        """Stride, padding and dilation as a user gives them."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def places(self) -> Any:
        """(stride, edges, dilation), complete, as the oracle takes them."""
        stride, dilation = (
            (n,) * self.dimensions if isinstance(n, int) else n
            for n in (self.stride, self.dilation)
        )
        edges = image_oracle.edges(self.padding, self.sizes, self.kernel, stride, dilation)
        return stride, edges, dilation

    @property
    def placing(self) -> tuple[Any, ...]:
        """``places`` and the groups: all that the oracle is told behind the tensors."""
        return (*self.places, self.groups)

    @property
    def numbers(self) -> tuple:
        """(stride, padding, dilation, groups) as the operators take them."""
        stride, edges, dilation = self.places
        return list(stride), [n for pair in edges for n in pair], list(dilation), self.groups

    @property
    def result_shape(self) -> tuple[int, ...]:
        sizes = image_oracle.output_sizes(self.sizes, self.kernel, *self.places)
        return (1 if self.batch is None else self.batch, self.channels[1], *sizes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1 if self.batch is None else self.batch, self.channels[0], *self.sizes)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.channels[1], self.channels[0] // self.groups, *self.kernel)

    @property
    def is_pointwise(self) -> bool:
        return all(k == 1 for k in self.kernel)

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.channels[0]

    @property
    def terms(self) -> int:
        """K of c·eps·√K: how many numbers one pixel of the result adds up, at most."""
        return int(np.prod(self.weight_shape[1:])) + 2  # bias and residual

    @property
    def input_terms(self) -> int:
        """K for the gradient of the input."""
        return int(np.prod(self.kernel)) * self.channels[1] // self.groups

    @property
    def weight_terms(self) -> int:
        """K for the gradients of weight and bias."""
        return max(1, int(np.prod(self.result_shape)) // self.channels[1])

    def values(self, role: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
        """float64 numbers that fit into float32, always the same for a role."""
        generator = np.random.default_rng(zlib.crc32(f"{self.name} {role}".encode()))
        return (scale * generator.standard_normal(shape)).astype(np.float32).astype(np.float64)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Input, weight, bias, residual and the result's gradient for the oracle."""
        fan_in = max(1, self.terms - 2)
        return {
            "input": self.values("input", self.input_shape),
            "weight": self.values("weight", self.weight_shape, fan_in**-0.5),
            "bias": self.values("bias", self.channels[1:]),
            "residual": self.values("residual", self.result_shape),
            "grad": self.values("grad", self.result_shape),
        }

    def tensor(self, role: str, dtype: torch.dtype | None = None, layout: str | None = None) -> Any:
        """One of ``arrays`` as a tensor among NaN, in the case's own precision unless ``dtype``
        says another; the bias is None where the case has none."""
        if role == "bias" and not self.bias:
            return None
        if layout is None:
            layout = self.weight_layout if role == "weight" else self.layout
        if role == "bias":
            layout = "contiguous"
        made = laid_out(torch.from_numpy(self.arrays[role]).to(dtype or self.dtype), layout)
        return made[0] if self.batch is None and role not in ("weight", "bias") else made

    def tensors(self, dtype: torch.dtype | None = None) -> Any:
        """(input, weight, bias)."""
        return tuple(self.tensor(role, dtype) for role in ("input", "weight", "bias"))

    @cached_property
    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """The oracle's result, and Σ|x||w| + |b|; both with a batch."""
        x, weight = self.arrays["input"], self.arrays["weight"]
        bias = self.arrays["bias"] if self.bias else None
        size = None if bias is None else abs(bias)
        return (
            image_oracle.conv(x, weight, bias, *self.placing),
            image_oracle.conv(abs(x), abs(weight), size, *self.placing),
        )

    @cached_property
    def expected_gradients(self) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
        """(gradient, sum of absolute values, how many) for input, weight and bias."""
        grad, x, weight = (self.arrays[role] for role in ("grad", "input", "weight"))
        found = image_oracle.gradients(grad, x, weight, *self.placing)
        sizes = image_oracle.gradients(abs(grad), abs(x), abs(weight), *self.placing)
        terms = (self.input_terms, self.weight_terms, self.weight_terms)
        names = ("input", "weight", "bias")
        return dict(zip(names, zip(found, sizes, terms, strict=True), strict=True))

    def check(self, out: torch.Tensor, what: str = "result") -> None:
        """``out`` is the convolution (without activation and residual)."""
        found = out.detach().unsqueeze(0) if self.batch is None else out.detach()
        image_oracle.assert_close(found.numpy(), *self.expected, self.terms, what=what)

    def check_gradient(self, role: str, found: torch.Tensor) -> None:
        """``found`` is the gradient of input, weight or bias, for ``arrays["grad"]``."""
        array = found.detach().numpy()
        if self.batch is None and role == "input":
            array = array[None]
        image_oracle.assert_close(array, *self.expected_gradients[role], what=f"d {role}")


def _strides(shape: tuple[int, ...], layout: str) -> list[int]:
    count = len(shape)
    order = list(range(count))  # slowest to fastest
    if layout in ("channels_last", "cropped"):
        order = [0, *range(2, count), 1]
    if layout == "transposed":
        order.reverse()
    if layout == "sliced":  # every second element of something larger
        shape = tuple(2 * n + 1 for n in shape)
    if layout == "cropped":  # some channels of a part of a larger channels_last image
        shape = tuple(n + 3 for n in shape)
    strides, step = [0] * count, 2 if layout == "sliced" else 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(1, shape[axis])
    return strides


LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed", "cropped")


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another layout, in the midst of NaN and ±inf, on an odd address: what is
    read beyond the tensor, or between its elements, shows itself."""
    strides = _strides(tuple(values.shape), layout)
    span = 1 + sum((n - 1) * step for n, step in zip(values.shape, strides, strict=True))
    margin = 1025
    poison = torch.tensor([float("nan"), float("inf"), float("-inf")], dtype=values.dtype)
    buffer = poison.repeat((max(0, span) + 2 * margin) // 3 + 1)
    return buffer.as_strided(values.shape, strides, margin).copy_(values)


def _dw(name: str, channels: int, multiplier: int = 1, **changes) -> ImageCase:
    """A depthwise case."""
    outputs = channels * multiplier
    return ImageCase(name, channels=(channels, outputs), groups=channels, **changes)


def _pw(name: str, sizes: tuple[int, int], channels: tuple[int, int], **changes) -> ImageCase:
    """A pointwise case."""
    options: dict[str, Any] = {"kernel": (1, 1), "padding": 0} | changes
    return ImageCase(name, sizes, channels, **options)


KERNELS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (1, 3), (3, 1), (3, 2), (2, 5), (1, 7))
STRIDES = ((1, 1), (2, 2), (3, 3), (2, 1), (1, 2), (1, 3), (4, 2))


def in_both(cases: Iterable[ImageCase]) -> list[ImageCase]:
    """Each case in float32 and in float64."""
    return [replace(case, dtype=dtype) for case in cases for dtype in (F32, F64)]


def in_turn(cases: Iterable[ImageCase]) -> list[ImageCase]:
    """The cases in float32 and in float64 by turns: one kernel serves both precisions, so that no
    geometry has to be tried twice."""
    return [replace(case, dtype=(F32, F64)[i % 2]) for i, case in enumerate(cases)]


# Where registers end, which is elsewhere in each precision: no multiple of one, exactly one, many.
CHANNELS = [
    *[
        ImageCase(f"{a} to {b} channels", (5, 6), (a, b))
        for a, b in ((1, 1), (1, 33), (3, 1), (5, 17), (17, 5), (33, 3), (3, 16), (16, 32), (8, 65),
                     (64, 47), (131, 7), (7, 131))
    ],
    *[
        _dw(f"depthwise, {c} channels", c, sizes=(5, 6))
        for c in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130)
    ],
    *[
        _pw(f"pointwise, {a} to {b} channels", (4, 5), (a, b), bias=b != 17)
        for a, b in ((1, 1), (1, 17), (3, 1), (5, 15), (17, 16), (33, 31), (3, 33), (16, 63),
                     (64, 65), (260, 7), (7, 260), (129, 130))
    ],
]  # fmt: skip

GEOMETRIES = [
    # Sizes: one pixel, one row, one column, odd ones, around registers.
    *[
        ImageCase(f"{h} × {w} pixels", (h, w), bias=w != 8)
        for h, w in ((1, 1), (1, 2), (2, 1), (1, 17), (17, 1), (2, 2), (3, 3), (5, 4), (7, 8),
                     (13, 15), (14, 14), (9, 33))
    ],
    *[_dw(f"depthwise, {h} × {w} pixels", 5, sizes=(h, w), bias=w != 8)
      for h, w in ((1, 1), (1, 2), (2, 1), (1, 17), (17, 1), (2, 2), (3, 3), (5, 4), (7, 8),
                   (13, 15), (14, 14), (9, 33), (3, 63))],
    # Batches.
    *[ImageCase(f"batch of {n}", (5, 4), batch=n) for n in (0, 1, 3, 9)],
    *[_dw(f"depthwise, batch of {n}", 5, sizes=(5, 4), batch=n) for n in (0, 1, 3, 9)],
    *[_pw(f"pointwise, batch of {n}", (5, 4), (3, 5), batch=n) for n in (0, 1, 3, 9)],
    ImageCase("one image, no batch", batch=None),
    _dw("depthwise, no batch", 5, batch=None, layout="channels_last"),
    _pw("pointwise, no batch", (5, 4), (3, 5), batch=None, layout="sliced"),
    # Pixels in all: around the rows of a register block (14, 7, 6) and of a tile.
    *[
        _pw(f"pointwise, {n} pixels", (1, n), (5, 18), batch=1)
        for n in (1, 5, 6, 7, 8, 12, 13, 14, 15, 27, 28, 29, 41, 42, 43, 55, 56, 57, 111, 112, 113,
                  563)
    ],
    *[_pw(f"pointwise, {n} × 7 × 2 pixels", (7, 2), (17, 33), batch=n) for n in (2, 5)],
    *[
        ImageCase(f"{n} pixels in a row", (1, n), (2, 18), (1, 3), padding=(0, 1), batch=1)
        for n in (6, 7, 13, 14, 15, 28, 29, 56, 57, 112, 113, 337)
    ],
    # Kernels, "same" and "valid".
    *[ImageCase(f"kernel {h} × {w}", (9, 8), kernel=(h, w), padding="same") for h, w in KERNELS],
    *[ImageCase(f"kernel {h} × {w}, valid", (8, 9), (4, 3), kernel=(h, w), padding="valid",
                bias=False) for h, w in KERNELS],
    *[_dw(f"depthwise, kernel {h} × {w}", 17, sizes=(9, 8), kernel=(h, w), padding="same")
      for h, w in KERNELS],
    *[_dw(f"depthwise, kernel {h} × {w}, valid", 9, sizes=(8, 9), kernel=(h, w), padding="valid",
          bias=False) for h, w in KERNELS],
    # Strides.
    *[ImageCase(f"stride {a}, {b}", (10, 9), stride=(a, b), bias=a != b) for a, b in STRIDES],
    *[ImageCase(f"stride {a}, {b}, same", (9, 10), kernel=(4, 3), stride=(a, b), padding="same")
      for a, b in STRIDES],
    *[_dw(f"depthwise, stride {a}, {b}", 18, sizes=(10, 9), stride=(a, b)) for a, b in STRIDES],
    *[_dw(f"depthwise, stride {a}, {b}, same", 3, sizes=(9, 10), kernel=(5, 2), stride=(a, b),
          padding="same") for a, b in STRIDES],
    *[_dw(f"depthwise 3 × 3, stride 2, same, {n} pixels", 16, sizes=(n, n + 1), stride=2,
          padding="same") for n in (1, 2, 7, 16)],
    *[_pw(f"pointwise, stride {a}, {b}", (7, 10), (9, 17), stride=(a, b)) for a, b in STRIDES],
    _pw("pointwise, stride 2 of 1 pixel", (1, 1), (4, 5), stride=2),
    _pw("pointwise, stride larger than the image", (2, 3), (4, 5), stride=5),
    _pw("pointwise, stride 2 and groups", (6, 5), (6, 9), stride=2, groups=3),
    _pw("pointwise, padded", (3, 4), (4, 5), padding=1),
    _pw("pointwise, padded unevenly, stride 2", (3, 4), (4, 5), padding=((0, 2), (3, 1)), stride=2),
    _pw("pointwise, same, stride 3", (7, 8), (4, 5), padding="same", stride=3),
    # Dilation.
    ImageCase("dilation 2", (9, 9), dilation=2, padding=2),
    ImageCase("dilation 3 and 2, same", (11, 8), dilation=(3, 2), padding="same", stride=2),
    ImageCase("dilation 2, only padding for some cells", (2, 3), dilation=4, padding=4),
    _dw("depthwise, dilation 2", 17, sizes=(9, 9), dilation=2, padding=2),
    _dw("depthwise, dilation 1 and 3, stride 2", 5, sizes=(9, 12), dilation=(1, 3), stride=2),
    _dw("depthwise, dilation 5", 5, sizes=(4, 3), dilation=5, padding=5),
    # Padding: more than half of the kernel, more than the kernel, uneven.
    ImageCase("padding 2 around 3 × 3", (4, 5), padding=2),
    ImageCase("padding 4 around 3 × 3", (3, 2), padding=4, stride=3),
    ImageCase("padding 2 and 0", (6, 5), padding=(2, 0)),
    ImageCase("uneven padding", (6, 5), padding=((0, 2), (3, 1))),
    ImageCase("uneven padding, stride 2", (6, 7), padding=((0, 1), (1, 0)), stride=2),
    ImageCase("only padding on one side", (1, 1), padding=((4, 0), (0, 4))),
    _dw("depthwise, padding 2 around 3 × 3", 16, sizes=(4, 5), padding=2),
    _dw("depthwise, padding 5 around 3 × 3", 5, sizes=(3, 2), padding=5, stride=2),
    _dw("depthwise, uneven padding", 5, sizes=(6, 5), padding=((0, 2), (3, 1))),
    _dw("depthwise, uneven padding, stride 2", 17, sizes=(6, 7), padding=((0, 1), (1, 0)),
        stride=2),
    # The kernel larger than the image.
    ImageCase("kernel 7 on 3 × 2", (3, 2), kernel=(7, 7), padding=3),
    ImageCase("kernel 5 on one pixel", (1, 1), kernel=(5, 5), padding="same"),
    ImageCase("kernel as large as the image", (5, 4), kernel=(5, 4), padding=0),
    _dw("depthwise, kernel 7 on 3 × 2", 16, sizes=(3, 2), kernel=(7, 7), padding=3),
    _dw("depthwise, kernel 5 on one pixel", 9, sizes=(1, 1), kernel=(5, 5), padding=2, stride=2),
    _dw("depthwise, kernel as large as the image", 9, sizes=(5, 4), kernel=(5, 4), padding=0),
    # Groups and depth multipliers.
    ImageCase("2 groups", channels=(6, 4), groups=2),
    ImageCase("3 groups, stride 2", channels=(9, 51), groups=3, stride=2),
    ImageCase("5 groups of 17 to 2", (4, 5), (85, 10), groups=5),
    ImageCase("groups of two, many", (4, 5), (34, 34), groups=17),
    _pw("pointwise, 2 groups", (5, 6), (34, 66), groups=2),
    _pw("pointwise, 7 groups", (5, 6), (21, 14), groups=7),
    _pw("pointwise, a group for each channel", (5, 6), (18, 18), groups=18),
    *[_dw(f"depthwise, {c} times {m} channels", c, m, sizes=(6, 5))
      for c, m in ((1, 2), (1, 33), (3, 2), (5, 3), (16, 2), (17, 3), (33, 2))],
    _dw("depthwise, times 2, stride 2, dilation 2", 9, 2, sizes=(9, 8), stride=2, dilation=2),
    _dw("depthwise, times 3, 1 × 1", 9, 3, sizes=(4, 5), kernel=(1, 1), padding=0),
    # How input and weight lie in memory.
    *[ImageCase(f"{layout} input", (5, 4), (5, 17), layout=layout) for layout in LAYOUTS[1:]],
    *[ImageCase(f"{layout} weight", (5, 4), (17, 5), layout="channels_last", weight_layout=layout)
      for layout in LAYOUTS[1:]],
    *[_dw(f"depthwise, {layout} input", 17, sizes=(5, 4), layout=layout) for layout in LAYOUTS[1:]],
    *[_dw(f"depthwise, {layout} weight", 17, sizes=(5, 4), layout="channels_last",
          weight_layout=layout) for layout in LAYOUTS[1:]],
    *[_pw(f"pointwise, {layout} input", (5, 4), (17, 5), layout=layout) for layout in LAYOUTS[1:]],
    *[_pw(f"pointwise, {layout} weight", (5, 4), (5, 17), layout="channels_last",
          weight_layout=layout) for layout in LAYOUTS[1:]],
    _pw("pointwise, cropped, stride 2", (5, 4), (17, 5), layout="cropped", stride=2),
    ImageCase("channels_last, one channel", (5, 4), (1, 5), layout="channels_last"),
    ImageCase("channels_last, one pixel", (1, 1), (5, 17), layout="channels_last"),
    # As in networks.
    ImageCase("stem", (17, 18), (3, 32), stride=2, padding="same", layout="channels_last"),
    _dw("depthwise, 7 × 7 × 96", 96, sizes=(7, 7), layout="channels_last"),
    _pw("pointwise, 7 × 7, 96 to 200", (7, 7), (96, 200), layout="channels_last", batch=1),
]  # fmt: skip

CASES = [*in_both(CHANNELS), *in_turn(GEOMETRIES)]

LINES = in_turn([
    ImageCase("line", (9,), (3, 3), kernel=(3,), groups=3),
    ImageCase("line, no batch", (9,), (3, 6), kernel=(3,), groups=3, batch=None),
    ImageCase("line of one", (1,), (3, 17), kernel=(1,), padding=0),
    ImageCase("line, stride 2, same", (10,), (5, 5), kernel=(4,), stride=2, padding="same",
              groups=5),
    ImageCase("line, multiplier, dilated", (14,), (3, 6), kernel=(3,), dilation=(2,), padding=3,
              groups=3, layout="transposed"),
    ImageCase("line, uneven padding", (7,), (4, 4), kernel=(5,), padding=((0, 3),), groups=4,
              layout="sliced"),
    ImageCase("line, 1, stride 3", (11,), (17, 9), kernel=(1,), stride=3, padding=0,
              layout="sliced"),
    ImageCase("line, 1, groups", (6,), (6, 9), kernel=(1,), padding=0, groups=3, bias=False),
    ImageCase("no lines", (6,), (6, 9), kernel=(1,), padding=0, batch=0),
])  # fmt: skip

VOLUMES = in_turn([
    ImageCase("volume", (4, 5, 3), (3, 3), kernel=(3, 3, 3), groups=3),
    ImageCase("volume, no batch", (4, 5, 3), (3, 6), kernel=(3, 3, 3), groups=3, batch=None),
    ImageCase("volume of one", (1, 1, 1), (3, 3), kernel=(3, 3, 3), groups=3),
    ImageCase("volume, stride 2, same", (5, 4, 3), (5, 5), kernel=(2, 3, 3), stride=2,
              padding="same", groups=5, layout="channels_last"),
    ImageCase("volume, all different", (7, 6, 8), (2, 4), kernel=(3, 2, 1), stride=(1, 2, 3),
              dilation=(2, 3, 1), padding=((1, 2), (3, 0), (0, 1)), groups=2, layout="transposed"),
    ImageCase("volume, kernel 1, stride", (3, 5, 4), (17, 9), kernel=(1, 1, 1), stride=(1, 2, 3),
              padding=0, layout="sliced"),
    ImageCase("volume, kernel 1, groups", (3, 2, 4), (6, 9), kernel=(1, 1, 1), padding=0, groups=3,
              bias=False),
    ImageCase("volume, kernel 1, padded", (3, 2, 4), (6, 9), kernel=(1, 1, 1), padding=(1, 0, 2)),
    ImageCase("no volumes", (3, 2, 4), (6, 6), kernel=(3, 3, 3), groups=6, batch=0),
])  # fmt: skip


# One of each kind, where the whole table would take too long.
SHAPES = in_turn(
    [
        ImageCase("standard", (6, 5), (5, 18)),
        ImageCase(
            "standard, stride 2, groups", (7, 6), (10, 34), stride=2, padding="same", groups=2
        ),
        ImageCase("pointwise", (5, 6), (19, 35), (1, 1), padding=0),
        ImageCase("pointwise, stride 2", (5, 6), (19, 35), (1, 1), padding=0, stride=2),
        ImageCase("depthwise", (5, 6), (19, 19), groups=19),
        ImageCase(
            "depthwise, stride 2", (8, 6), (16, 16), (5, 5), padding="same", stride=2, groups=16
        ),
        ImageCase("depthwise, times 2", (5, 6), (9, 18), groups=9),
    ]
)


def named(*names: str) -> list[ImageCase]:
    """Some of the cases; in float32 where there are both."""
    by_name = {case.name: case for case in [*reversed(CASES), *LINES, *VOLUMES]}
    return [by_name[name] for name in names]


def each(cases=CASES):
    """Runs a test once for every case."""
    return pytest.mark.parametrize("case", cases, ids=str)


def every_third(cases=CASES):
    """The same where a case takes long: the others with ``--slow``."""
    chosen = [case if i % 3 == 0 else pytest.param(case, marks=pytest.mark.slow)
              for i, case in enumerate(cases)]  # fmt: skip
    return pytest.mark.parametrize("case", chosen, ids=str)


DTYPES = pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
