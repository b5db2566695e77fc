"""Run as a program: training and runs of several links between pages that may not be touched.

As ``image_fences``, whose fences these are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from image_cases import F32, F64, ImageCase
from image_fences import fence_everything, fenced
from image_runs import BLOCKS, made
from norm_cases import OPERATORS, TRAINED, operands

from pointwise.convolution.window import window
from pointwise.engine.cpu.loops.weight_gradient import mixed_weight_gradient

# Enough channels for blocks of them that end within a register.
WIDE = [
    ImageCase(f"{groups} groups of {channels}", (3, 3), (groups * channels, groups * 5), (1, 1),
              padding=0, groups=groups, batch=1)
    for groups, channels in ((8, 100), (2, 120), (1, 240), (8, 176), (8, 208))
]  # fmt: skip


def image(tensor: torch.Tensor, at_end: bool) -> torch.Tensor:
    return fenced(tensor.detach().contiguous(memory_format=torch.channels_last), at_end)


def step(case: ImageCase, at_end: bool) -> None:
    for normed in (True, False):
        o = operands(case, normed=normed)
        o.z, o.grad = image(o.z, at_end), image(o.grad, at_end)
        for name in ("mean", "scale", "shift", "weight", "d_mean", "d_variance"):
            tensor = getattr(o, name)
            setattr(o, name, None if tensor is None else fenced(tensor.contiguous(), at_end))
        for tensor in o.wanted:
            tensor.requires_grad_()
        found = OPERATORS.norm_conv2d(*o.given)
        torch.autograd.grad(found, o.wanted, o.slopes)
        if not normed:
            continue
        norm = (o.z, o.mean, o.scale, o.shift)
        for activation in ("relu6", "silu"):
            for residual in (None, image(o.z, at_end)):
                out = OPERATORS.norm_act(*norm, residual, activation)
                torch.autograd.grad(out, norm, image(out, at_end))


def weight_alone(case: ImageCase, at_end: bool) -> None:
    """The weight's gradient of pixels that are read where they lie."""
    x, grad = (image(case.tensor(role), at_end) for role in ("input", "grad"))
    stride, padding, dilation, groups = case.numbers
    seen = window(case.batch, case.sizes, case.kernel, stride, padding, dilation)
    found = mixed_weight_gradient(grad, x, seen, case.kernel, groups)
    case.check_gradient("weight", found)


def main(side: str) -> None:
    at_end = side == "end"
    dtypes = {name: (F32, F64)[i % 2] for i, name in enumerate(BLOCKS)}
    blocks = {
        name: (made(name, dtype), made(name, dtype, training=False))
        for name, dtype in dtypes.items()
    }
    fence_everything(at_end)
    for case in TRAINED:
        print(case, flush=True)
        step(case, at_end)
    for name, (trained, evaluated) in blocks.items():
        print(name, flush=True)
        for module in (trained, evaluated):
            for parameter in module.parameters():
                parameter.data = fenced(parameter.data, at_end)
        for sizes in ((2, 9, 8, 7), (1, 9, 3, 5)):
            x = image(torch.rand(*sizes, dtype=dtypes[name]), at_end)
            trained(x.requires_grad_()).sum().backward()
            with torch.no_grad():
                evaluated(x)
    print("all", flush=True)


def wide(side: str) -> None:
    at_end = side == "end"
    for case in WIDE:  # the oracle's loops need no fences
        _ = case.expected_gradients
    fence_everything(at_end)
    for case in WIDE:
        print(case, flush=True)
        weight_alone(case, at_end)
    print("all", flush=True)


if __name__ == "__main__":
    (wide if sys.argv[2:] == ["wide"] else main)(sys.argv[1])
