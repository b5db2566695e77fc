"""Samples of the shift convolution on images: channels around the offsets, and where pixels end."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import image_oracle
import numpy as np
import pytest
import torch
from image_cases import laid_out

F32, F64 = torch.float32, torch.float64


@dataclass
class ShiftCase:
    """Inputs of a shift convolution, the same numbers in every precision."""

    name: str
    sizes: tuple[int, int] = (6, 7)
    channels: tuple[int, int] = (20, 5)
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    batch: int = 2
    layout: str = "contiguous"

    @property
    def geometry(self) -> tuple[tuple[int, int], ...]:
        return self.kernel, self.stride, self.dilation

    @property
    def numbers(self) -> tuple[list[int], ...]:
        """The geometry as the operators take it."""
        return tuple(map(list, self.geometry))

    def array(self, role: str) -> np.ndarray:
        c_in, c_out = self.channels
        sizes = [-(-n // s) for n, s in zip(self.sizes, self.stride, strict=True)]
        shape = {
            "input": (self.batch, c_in, *self.sizes),
            "weight": (c_out, c_in),
            "bias": (c_out,),
            "grad": (self.batch, c_out, *sizes),
        }[role]
        generator = np.random.default_rng(zlib.crc32(f"{self.name} {role}".encode()))
        return generator.standard_normal(shape).astype(np.float32).astype(np.float64)

    def tensor(self, role: str, dtype: torch.dtype) -> torch.Tensor:
        """One of the arrays among NaN, in the layout of the case."""
        layout = "contiguous" if role == "bias" else self.layout
        layout = "transposed" if role == "weight" and layout != "contiguous" else layout
        return laid_out(torch.from_numpy(self.array(role)).to(dtype), layout)

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """The oracle's result, and Σ|x||w| + |b|."""
        moved = image_oracle.shift(self.array("input"), *self.geometry)
        weight, bias = self.array("weight"), self.array("bias")[:, None, None]
        mix = "nchw,oc->nohw"
        return (
            np.einsum(mix, moved, weight) + bias,
            np.einsum(mix, abs(moved), abs(weight)) + abs(bias),
        )

    def expected_gradients(self) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
        """(gradient, sum of absolute values, how many) for input, weight and bias."""
        grad, weight = self.array("grad"), self.array("weight")
        moved = image_oracle.shift(self.array("input"), *self.geometry)
        pixels = max(1, grad.size // max(1, grad.shape[1]))

        def found(grad, weight, moved):
            back = np.einsum("nohw,oc->nchw", grad, weight)
            return (
                image_oracle.shift_adjoint(back, self.sizes, *self.geometry),
                np.einsum("nohw,nchw->oc", grad, moved),
                grad.sum((0, 2, 3)),
            )

        values, sizes = found(grad, weight, moved), found(abs(grad), abs(weight), abs(moved))
        terms = (grad.shape[1], pixels, pixels)
        names = ("input", "weight", "bias")
        return dict(zip(names, zip(values, sizes, terms, strict=True), strict=True))


CASES = [
    ShiftCase("two channels an offset, two left over"),
    ShiftCase("an offset each", channels=(9, 4)),
    ShiftCase("fewer channels than offsets", channels=(8, 4)),
    ShiftCase("one channel", channels=(1, 3)),
    ShiftCase("whole registers", (5, 5), (144, 33)),
    ShiftCase("between registers", (4, 9), (9 * 7 + 3, 70)),
    ShiftCase("one pixel", (1, 1), (19, 3)),
    ShiftCase("a kernel larger than the image", (2, 3), (30, 3), (5, 5)),
    ShiftCase("kernel 1", channels=(7, 3), kernel=(1, 1)),
    ShiftCase("a row of offsets", (5, 8), (11, 3), (1, 5)),
    ShiftCase("stride 2", stride=(2, 2), channels=(37, 6)),
    ShiftCase("stride 2, even sizes", (6, 8), stride=(2, 2)),
    ShiftCase("strides 3 and 2", (7, 8), stride=(3, 2)),
    ShiftCase("stride 2, kernel 1", channels=(7, 3), kernel=(1, 1), stride=(2, 2)),
    ShiftCase("dilation 2", (9, 8), dilation=(2, 2)),
    ShiftCase("dilation 2, stride 2", (9, 8), stride=(2, 2), dilation=(2, 2)),
    ShiftCase("dilations 3 and 2, strides 2 and 3", (11, 9), (28, 3), (3, 3), (2, 3), (3, 2)),
    ShiftCase("more rows than a tile", (23, 19), (20, 9), batch=3),
    ShiftCase("channels_last", layout="channels_last"),
    ShiftCase("sliced", layout="sliced", stride=(2, 1)),
    ShiftCase("transposed", layout="transposed"),
    ShiftCase("cropped", layout="cropped"),
    ShiftCase("no images", batch=0),
]
FEW = [CASES[i] for i in (0, 2, 4, 10, 15, 17)]


def each(cases=CASES):
    """Runs a test once for every case."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


PRECISIONS = pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
